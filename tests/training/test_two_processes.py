"""Two processes with half a batch each give the gradient of one process with the whole batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from lazy import Lazy
from tiny_prior import tiny_prior, weights
from torch.nn.parallel import DistributedDataParallel

from diffusion_priors.training.image_store import ImageStore

if TYPE_CHECKING:
    from diffusion_priors.training.data import TrainingStream
    from diffusion_priors.training.module import PriorTraining, TrainingBatch

tiny = Lazy("tiny_training")
data = Lazy("diffusion_priors.training.data")
training = Lazy("diffusion_priors.training.module")

BATCH, STEP = 8, 3


def stream() -> TrainingStream:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 16, 16), dtype=np.uint8)
    return data.TrainingStream(ImageStore(pixels, list("abcde"), []), np.arange(5), 10, BATCH, True, 0)


def module() -> PriorTraining:
    return tiny.training_of(tiny_prior({"learn_sigma": True})).double()


def share(rank: int, world: int) -> TrainingBatch:
    """The images of a rank at step STEP, in double precision."""
    (positions,) = data.Positions(STEP, STEP + 1, BATCH, 1, rank, world)
    batch = data.collate([stream()[k] for k in positions])
    return training.TrainingBatch(batch.x0.double(), batch.z.double(), batch.index)


class Loss(torch.nn.Module):
    """The training loss as a forward pass, as DistributedDataParallel needs it."""

    def __init__(self) -> None:
        super().__init__()
        self.module = module()

    def forward(self, batch: TrainingBatch) -> torch.Tensor:
        return self.module.losses(batch).mean()


def gradient(loss: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in loss.parameters()])


def one_of_two(rank: int, folder: str) -> None:
    """The processes meet in a file: a port that is free now may be another test's a moment later."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    loss = DistributedDataParallel(Loss())
    loss(share(rank, 2)).backward()
    torch.save(gradient(loss), Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_process_gradients_equal_one_process_gradients(tmp_path):
    tests = Path(__file__).parents[1]
    environment = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{tests.parent}{os.pathsep}{tests / 'support'}"}
    commands = [[sys.executable, __file__, str(rank), str(tmp_path)] for rank in (0, 1)]
    processes = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for command in commands]
    for process in processes:
        _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
    whole = Loss()
    whole(share(0, 1)).backward()
    half = Loss()
    half(share(0, 2)).backward()
    expected = gradient(whole)
    assert (gradient(half) - expected).norm() > 0.05 * expected.norm()  # one share alone is another gradient
    for rank in (0, 1):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt", weights_only=True), expected, rtol=1e-9, atol=1e-14)
    assert weights(whole).numel() == expected.numel()


if __name__ == "__main__":
    one_of_two(int(sys.argv[1]), sys.argv[2])
