"""One run of sample.py or evaluate.py, from built parts to a summary: resumable, shared by any number of processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.evaluation.metrics.per_image import Metrics
from diffusion_priors.evaluation.restoration.batches import Batches, Items, NoImages, measurement_hash
from diffusion_priors.evaluation.restoration.callbacks import EvaluationCallback, LogRun
from diffusion_priors.evaluation.restoration.finish import finalize_run
from diffusion_priors.evaluation.restoration.folder import RestorationFolder, changed, pending
from diffusion_priors.evaluation.restoration.frozen import FrozenImages, check_free, freeze, is_frozen, manifest
from diffusion_priors.evaluation.restoration.groups import batches_of, walks_of
from diffusion_priors.evaluation.restoration.images import ImageSet
from diffusion_priors.evaluation.restoration.module import Report, RestorationModule, never
from diffusion_priors.evaluation.restoration.predict import predict
from diffusion_priors.evaluation.restoration.progress import ProgressReport
from diffusion_priors.evaluation.restoration.writer import WriteRecords
from diffusion_priors.runs.exit_codes import FAILED, OF_SIGNAL, REFUSED
from diffusion_priors.runs.lock import started_by_first
from diffusion_priors.runs.loggers import Dashboard, NoLogger
from diffusion_priors.runs.reading.records import read_records
from diffusion_priors.runs.signals import Listener
from diffusion_priors.runs.trainer import TrainerSettings
from diffusion_priors.solvers.method import Method


@dataclass(kw_only=True)
class RestorationRun:
    """`check` refuses what cannot work before anything is computed; `run` restores what is not on record yet.

    An image's result depends on `method`, `data` and `seed`. `num_samples` restorations per image are computed by
    `trainer`, `batch_size` at once, and scored by `metrics`. The network sees `images_per_call` of them at once, whatever
    the batch; None: the batch. `trajectory` keeps the x̂0 of all steps, or of that many. `measurement_spec` describes
    operator and noise model as plain values. Batches are the same groups of items whichever process computes them, so that
    resuming and sharing change no number.

    With `resume` a run in the same folder is resumed; with `repair` what is damaged there is computed again. Without
    `resume` such a folder is refused unless `overwrite` is set, the run uses one device, and an interrupted run is
    summarised as far as it got.
    """

    method: Method
    data: ImageSet
    metrics: Metrics
    trainer: TrainerSettings
    output: Path
    measurement_spec: dict
    seed: int
    num_samples: int
    batch_size: int
    overwrite: bool
    images_per_call: int | None = None
    trajectory: bool | int = False
    repair: bool = False
    resume: bool = True
    callbacks: dict[str, pl.Callback] = field(default_factory=dict)
    logger: Dashboard = field(default_factory=NoLogger)
    known: set[tuple[str, int]] = field(default_factory=set, init=False)
    stopped: tuple[str, int] | None = field(default=None, init=False)
    finished: dict | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        for name in ("num_samples", "batch_size", "images_per_call"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}; set {name}")
        if not self.resume and self.trainer.world > 1:
            raise ValueError(
                f"sample.py uses one device, got trainer.devices={self.trainer.world}; "
                "set trainer.devices=1, or share the images among devices with evaluate.py"
            )
        if self.data.freeze is not None and self.trainer.world > 1:
            raise ValueError("measurements are frozen by one process; use data.freeze on one device, then data.measurements on several")

    @property
    def first(self) -> bool:
        """Whether this is the process that prints and summarises."""
        return rank_zero_only.rank == 0

    @property
    def measurement_key(self) -> str:
        """What stands for operator and noise in the records' measurement_hash."""
        return json.dumps(self.measurement_spec, sort_keys=True)

    def check(self, config: dict) -> None:
        """Raises ValueError or OSError, in one line, for parts that cannot be used together and images that cannot be read.

        `config` is the resolved configuration; a run in the same folder with another one is not resumed.
        """
        self.folder = RestorationFolder(self.output, rank_zero_only.rank or 0, self.overwrite, self.repair)
        if not self.resume:
            self.folder.check_unused()
        self.weights = self.method.prior.fingerprint()
        self.known = self.folder.find(config, self.weights, self.metrics.names)
        self.items = self._items()
        self.items.check_apart(self.output)
        keys = self.items.keys()
        groups = batches_of(len(keys), self.batch_size)
        self.folder.check_images(self.known, {*keys})
        if not started_by_first():
            self._check_known()
        self.pending = pending(groups, keys, self.known)
        if not self.pending and not self._must_freeze() and self.known == {*keys}:
            self.finished = self.folder.complete_summary()
        if self.finished is not None:
            return
        self.method.check_compatible()
        self.trainer.recompute(self.method.prior.network)
        if not started_by_first():  # which has read every image by then
            self.items.check(self.method.operator, self.method.image_shape, self.measurement_spec)
        if self.data.freeze is not None:
            made_with = manifest(self.seed, self.measurement_spec, self.method.image_shape)
            check_free(Path(self.data.freeze), made_with, self.items.ids)
        self._check_metrics()

    def _items(self) -> Items:
        if self.method.solver.uses_measurement:
            return self.data.items(self.method, self.num_samples)
        if self.data.given or self.data.freeze is not None:
            keys = "data.root, .degraded, .measurements and .freeze"
            raise ValueError(f"this solver looks at no image; leave out {keys}, or choose another solver")
        return NoImages(self.num_samples)

    def _must_freeze(self) -> bool:
        return self.data.freeze is not None and not is_frozen(Path(self.data.freeze))

    def _check_known(self) -> None:
        """Raises ValueError where the content of an image on record has changed."""
        hashes = {record["id"]: record["measurement_hash"] for record in self.folder.sound}
        for index, name in enumerate(self.items.ids):
            image = self.items.given(index) if hashes.get(name) else None
            if image is not None and measurement_hash(self.measurement_key, self.seed, name, image) != hashes[name]:
                raise changed(self.output, name)

    def _check_metrics(self) -> None:
        over_sets = self.metrics.distribution is not None or self.metrics.calibration is not None
        if over_sets and not self.items.has_truth:
            raise ValueError("metrics=fid and metrics=calibration compare with clean images, and there are none; set metrics=default")
        self.metrics.check(len(self.items.ids), self.num_samples)
        if self.items.has_truth:
            self.metrics.prepare(self.method.prior.size)
        else:
            self.metrics.without_truth()

    def title(self, words: str) -> str:
        """What is about to happen, in a line or two."""
        lines = [f"{words} · {len(self.method.plan())} steps"]
        if self.known:
            lines.append(f"{len(self.known)} of {len(self.items)} restorations are on record; resuming")
        approximation = self.method.approximation()
        lines += [] if approximation is None else [approximation]
        return "\n".join(lines + self.items.notices + self.trainer.notices)

    def run(self, config: dict, text: str, title: str) -> dict | None:
        """Restore what is not on record yet, then summarise; → the summary, None in other processes and where there is none.

        `text` is what config.yaml will hold. `stopped` says why and with which exit code a run ended early.
        """
        listener = Listener()
        code = FAILED
        try:
            with listener.listening():
                if self.first:
                    self.folder.open(text)
                loggers = self.logger(self.output, config, self.overwrite) if self.first else []
                callbacks = [LogRun(self.logger, self.output), *self.callbacks.values()]
                if self._restore(listener, callbacks, loggers):
                    summary = self._summarise(title, callbacks, loggers, config) if self.first else None
                    code = FAILED if summary and summary["failed"] else 0
                else:
                    code = OF_SIGNAL[listener.received]
                    summary = self._stop(listener.received, code, title)
            return summary
        except (ValueError, OSError):
            code = REFUSED
            raise
        except KeyboardInterrupt:
            code = OF_SIGNAL["SIGINT"]
            raise
        finally:
            self.logger.finish(code)

    def _restore(self, listener: Listener, callbacks: list[pl.Callback], loggers: list[Logger]) -> bool:
        """Compute and write what is pending; → whether all of it was done."""
        self.trainer.prepare(self.method.prior.network)
        if self.data.freeze is not None:
            self._freeze()
        if not self.pending:
            return True
        trainer = self.trainer.prediction([WriteRecords(self.folder, self.known), *callbacks], loggers)
        batches = Batches(self.items, self.pending[trainer.global_rank :: trainer.world_size])
        progress = (
            ProgressReport(walks_of(batches.groups, self.images_per_call), residual=self.method.solver.uses_measurement)
            if self.first
            else None
        )
        if progress is not None:
            progress.watch(self.method.prior.network)
        module = self._module(progress, lambda: listener.received is not None)
        try:
            return predict(trainer, module, batches, self.batch_size, self.data.workers)
        finally:
            if progress is not None:
                progress.close()

    def _module(self, report: Report | None = None, should_stop: Callable[[], bool] = never) -> RestorationModule:
        method = self.method
        return RestorationModule(
            denoiser=Denoiser(method.prior, self.trainer.autocast),
            solver=method.solver,
            operator=method.operator,
            noise_model=method.noise_model,
            sampler=method.sampler,
            plan=method.plan(),
            metrics=self.metrics,
            image_shape=method.image_shape,
            seed=self.seed,
            measurement_seed=self.items.measurement_seed,
            measurement_key=self.measurement_key,
            report=report,
            should_stop=should_stop,
            images_per_call=self.images_per_call,
            frames=self.trajectory,
        )

    def _freeze(self) -> None:
        digest = freeze(Path(self.data.freeze), self._module(), self.items, self.measurement_spec)
        print(f"measurements: {self.data.freeze}, SHA-256 {digest}")
        self.items = FrozenImages(Path(self.data.freeze), self.num_samples)

    def _stop(self, signal: str, code: int, title: str) -> dict | None:
        """Note why the run ended; where it cannot be resumed, summarise what is finished."""
        if self.resume:
            self.stopped = f"stopped by {signal}; finished restorations are on record, and the same command resumes the run", code
            return None
        done = len(read_records(self.output))
        self.stopped = f"stopped by {signal}; {done} of {len(self.items)} restorations are finished", code
        return self._summarise(title, [], []) if done else None

    def _summarise(self, title: str, callbacks: list[pl.Callback], loggers: list[Logger], config: dict | None = None) -> dict:
        """The logger of `config` is noted as one that has the results; None where no logger has."""

        def on_summary(summary: dict, records: list[dict]) -> None:
            if config is not None and config.get("logger") is not None:
                summary["logged"] = [config["logger"]]
            for callback in callbacks:
                if isinstance(callback, EvaluationCallback):
                    callback.on_evaluation_end(self.output, summary, records, loggers)

        return finalize_run(self.folder, title, self.metrics, self.num_samples, self.items.keys(), self.stopped is None, on_summary)
