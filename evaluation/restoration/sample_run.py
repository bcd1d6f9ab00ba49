"""One restoration run from built parts to an output folder."""

from __future__ import annotations

from dataclasses import dataclass

from torch.utils.data import DataLoader, Dataset

from diffusion_priors.evaluation.restoration.batches import Images, Nothing, collate
from diffusion_priors.evaluation.restoration.method import Parts
from diffusion_priors.evaluation.restoration.output import OutputFolder
from diffusion_priors.evaluation.restoration.progress import ProgressReport
from diffusion_priors.evaluation.restoration.write_output import WriteOutput
from diffusion_priors.images.io import Fit


@dataclass(kw_only=True)
class Restoration(Parts):
    """`check` refuses what cannot work before anything is computed; `run` does the work, on one device.

    `input` are clean images, degraded and then restored; `measurement` are degraded ones, restored as they
    are; a solver that looks at no image takes neither.
    """

    fit: Fit
    output: OutputFolder
    input: str | list[str] | None
    measurement: str | list[str] | None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.trainer.world > 1:
            raise ValueError(
                f"sample.py takes one device, got trainer.devices={self.trainer.world}; evaluate.py shares images among several"
            )

    def check(self) -> None:
        """Raises ValueError or OSError, in one line, for parts that do not go together and inputs that do not do."""
        self.output.check()
        if self.metrics.distribution is not None or self.metrics.calibration is not None:
            raise ValueError("sample.py scores each image by itself; metrics=fid and metrics=calibration are evaluate.py's")
        self.settle()
        self.data = self._data()
        self.data.check()
        if self.data.kind == "truth":
            self.metrics.prepare()

    def _data(self) -> Dataset:
        if not self.solver.uses_measurement:
            if self.input is not None or self.measurement is not None:
                raise ValueError("this solver looks at no image; leave out input= and measurement=, or choose another solver")
            return Nothing(self.num_samples)
        if self.measurement is None:
            return Images(self.input, "truth", *self._frame(self.image_shape))
        if self.input is not None:
            raise ValueError("input= is a clean image and measurement= a degraded one; give one of them")
        if self.operator.random:
            raise ValueError(
                "this operator draws its mask or kernel at random, so it cannot be the one that made the measurement; "
                "use operator=inpaint_mask, operator=deblur_kernel or another without randomness"
            )
        return Images(self.measurement, "measured", *self._frame(self.measurement_shape))

    def _frame(self, shape: tuple[int, int, int]) -> tuple:
        return shape[0], shape[1:], self.fit, self.num_samples

    def run(self, config: str, title: str) -> None:
        """Restore everything; `config` is the text of config.yaml. Finished images survive an interruption."""
        loader = DataLoader(self.data, batch_size=self.batch_size, collate_fn=collate)
        report = ProgressReport(len(loader))
        module = self.module(report)
        trainer = self.trainer.prediction([WriteOutput(self.output)], [])
        self.output.open(config)
        try:
            self.predict(trainer, module, loader)
        finally:
            report.close()
            self.output.finish(title, self.metrics.footnote)
