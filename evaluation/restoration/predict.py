"""Lightning's prediction over the batches of a run, until all are done or a stop is requested."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader, SequentialSampler

from diffusion_priors.evaluation.restoration.batches import Batches
from diffusion_priors.evaluation.restoration.module import RestorationModule


class UntilStopped(SequentialSampler):
    """The indices of `batches` in order, and none after `should_stop` answers true."""

    def __init__(self, batches: Batches, should_stop: Callable[[], bool]) -> None:
        super().__init__(batches)
        self.should_stop, self.stopped = should_stop, False

    def __iter__(self) -> Iterator[int]:
        for index in super().__iter__():
            self.stopped = self.should_stop()
            if self.stopped:
                return
            yield index


def predict(trainer: pl.Trainer, module: RestorationModule, batches: Batches, batch_size: int, workers: int) -> bool:
    """Restore `batches`, read ahead by `workers` processes; → whether all were finished, by every process of the run.

    Raises ValueError where the machine cannot do it, KeyboardInterrupt for a second Ctrl-C.
    """
    sampler = UntilStopped(batches, module.should_stop)
    loader = DataLoader(batches, batch_size=None, sampler=sampler, num_workers=workers)
    try:
        trainer.predict(module, loader, return_predictions=False)
    except torch.OutOfMemoryError as error:
        raise ValueError(f"out of memory at batch_size={batch_size}; lower it, or set trainer.precision=bf16") from error
    except MisconfigurationException as error:  # what Lightning will not do on this machine
        raise ValueError(f"{str(error).splitlines()[0]}; choose another trainer") from error
    except SystemExit as error:  # what Lightning makes of Ctrl-C
        raise KeyboardInterrupt from error
    if module.interrupted or sampler.stopped:
        return False
    trainer.strategy.barrier("restored")
    return True
