"""One evaluation from built parts to a summary: resumable, shared by any number of processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only
from torch.utils.data import DataLoader, Dataset

from diffusion_priors.evaluation.reporting.run_page import write_report
from diffusion_priors.evaluation.restoration.batches import Batches, Nothing
from diffusion_priors.evaluation.restoration.callbacks import EvaluationCallback
from diffusion_priors.evaluation.restoration.finish import conclude
from diffusion_priors.evaluation.restoration.folder import EvaluationFolder, changed, pending
from diffusion_priors.evaluation.restoration.frozen import MANIFEST, FrozenImages, freeze
from diffusion_priors.evaluation.restoration.images import ImageSet
from diffusion_priors.evaluation.restoration.log_run import LogRun
from diffusion_priors.evaluation.restoration.method import Parts
from diffusion_priors.evaluation.restoration.module import measurement_hash
from diffusion_priors.evaluation.restoration.progress import ProgressReport
from diffusion_priors.evaluation.restoration.writer import WriteRecords
from diffusion_priors.runs.layout import REPORT
from diffusion_priors.runs.loggers import Dashboard
from diffusion_priors.runs.records import read_records
from diffusion_priors.runs.signals import CODES, Listener, ToldToStop

FAILED, REFUSED = 1, 2
"""Exit codes, as the dashboards are told them: of failed restorations and errors, of what the machine or the folder refused."""


@dataclass(kw_only=True)
class Evaluation(Parts):
    """`check` refuses what cannot work before anything is computed; `run` does what is not on record yet.

    Batches are the same groups of items whoever computes them, so that resuming and sharing change no number.
    """

    data: ImageSet
    callbacks: dict[str, pl.Callback]
    logger: Dashboard
    output: Path
    overwrite: bool = False
    known: set[tuple[str, int]] = field(default_factory=set, init=False)
    stopped: tuple[str, int] | None = field(default=None, init=False)
    finished: dict | None = field(default=None, init=False)

    @property
    def first(self) -> bool:
        """Whether this is the process that speaks and writes."""
        return rank_zero_only.rank == 0

    def check(self, config: dict) -> None:
        """Raises ValueError or OSError, in one line, for parts that do not go together and images that do not do.

        `config` is the resolved configuration; a run in the same folder with another one is not gone on with.
        """
        self.folder = EvaluationFolder(self.output, rank_zero_only.rank or 0, self.overwrite)
        self.weights = self.prior.fingerprint()
        self.known = self.folder.find(config, self.weights)
        self.items = self._items()
        keys = [(name, sample) for name in self.items.ids for sample in range(self.num_samples)]
        groups = [range(i, min(i + self.batch_size, len(keys))) for i in range(0, len(keys), self.batch_size)]
        self.folder.check_images(self.known, {*keys})
        self._check_known()
        self.pending = pending(groups, keys, self.known)
        before = self.folder.summary()
        frozen = self.data.freeze is None or (Path(self.data.freeze) / MANIFEST).is_file()
        if not self.pending and before is not None and before["records"] == len(keys) and frozen and not self.overwrite:
            self.finished = before
            return
        self.settle()
        self._check_items()
        if self.items.kind == "truth":
            self.metrics.prepare()
        self.metrics.check(len(self.items.ids), self.num_samples)

    def _items(self) -> Dataset:
        if not self.solver.uses_measurement:
            if any(given is not None for given in (self.data.root, self.data.measurements, self.data.freeze)):
                raise ValueError("this solver looks at no image; leave out data.root, .measurements and .freeze, or choose another solver")
            return Nothing(self.num_samples)
        if self.data.measurements is None:
            return self.data.images(self.image_shape, self.num_samples)
        frozen = FrozenImages(Path(self.data.measurements), self.num_samples)
        return frozen.only(self.data.chosen(frozen.ids))

    def _check_known(self) -> None:
        """Raises ValueError where an image on record has another content by now. Frozen ones have hashes of their own."""
        kept = {record["id"]: record["measurement_hash"] for record in read_records(self.output)} if self.known else {}
        known = [i for i, name in enumerate(self.items.ids) if kept.get(name) and not isinstance(self.items, FrozenImages)]
        for index in known:
            name, image = self.items.ids[index], self.items.read(index)
            if measurement_hash(self.problem_key, self.seed, name, image) != kept[name]:
                raise changed(self.output, name)

    def _check_items(self) -> None:
        if isinstance(self.items, FrozenImages):
            self.items.check(self.module(), self.measurement_spec)
        else:
            self.items.check()
        if self.data.freeze is not None and self.trainer.world > 1:
            raise ValueError(
                "measurements are frozen by one process; run data.freeze on one device, then the others with data.measurements"
            )

    def mend(self) -> None:
        """Write the page of a finished run again where it is missing."""
        if not (self.output / REPORT).exists():
            write_report(self.output)

    def title(self, words: str) -> str:
        """What is about to happen, in a line or two."""
        lines = [f"{words} · {len(self.levels) - 1} steps"]
        if self.known:
            lines.append(f"{len(self.known)} of {len(self.items)} restorations are on record; going on")
        return "\n".join(lines)

    def run(self, config: dict, text: str, title: str) -> dict | None:
        """Restore what is not on record yet, then summarise; → the summary, or None where told to stop (see `stopped`).

        `text` is what config.yaml will hold.
        """
        listener = Listener()
        code = FAILED
        try:
            with listener.listening():
                if self.first:
                    self.folder.open(text)
                loggers = self.logger(self.output, config, self.overwrite) if self.first else []
                callbacks = [LogRun(self.logger, self.output), *self.callbacks.values()]
                self._restore(listener, callbacks, loggers)
                summary = self._summarise(title, callbacks, loggers) if self.first else None
            code = FAILED if summary and summary["failed"] else 0
            return summary
        except ToldToStop as error:
            code = CODES.get(str(error), 1)
            self.stopped = (f"stopped by {error}; what is finished is on record, and the same line goes on", code)
            return None
        except (ValueError, OSError):
            code = REFUSED
            raise
        except KeyboardInterrupt:
            code = CODES["SIGINT"]
            raise
        finally:
            self.logger.finish(code)

    def _restore(self, listener: Listener, callbacks: list[pl.Callback], loggers: list[Logger]) -> None:
        module = self.module(None, getattr(self.items, "seed", None))
        if self.data.freeze is not None:
            digest = freeze(Path(self.data.freeze), module, self.items, self.measurement_spec)
            print(f"measurements: {self.data.freeze}, SHA-256 {digest}")
            self.items = FrozenImages(Path(self.data.freeze), self.num_samples)
        if not self.pending:
            return
        trainer = self.trainer.prediction([WriteRecords(self.folder, self.known), *callbacks], loggers)
        mine = self.pending[trainer.global_rank :: trainer.world_size]
        progress = ProgressReport(len(mine)) if self.first else None

        def report(problem, step) -> None:
            if listener.told is not None:
                raise ToldToStop(listener.told)
            if progress is not None:
                progress(problem, step)

        module.report = report
        loader = DataLoader(Batches(self.items, mine), batch_size=None, num_workers=self.data.workers)
        try:
            self.predict(trainer, module, loader)
            trainer.strategy.barrier("evaluated")
        finally:
            if progress is not None:
                progress.close()

    def _summarise(self, title: str, callbacks: list[pl.Callback], loggers: list[Logger]) -> dict:
        def tell(summary: dict, records: list[dict]) -> None:
            for callback in callbacks:
                if isinstance(callback, EvaluationCallback):
                    callback.on_evaluation_end(self.output, summary, records, loggers)

        return conclude(self.folder, title, self.metrics, self.num_samples, tell)
