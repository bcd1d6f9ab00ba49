"""The progress of a run: a bar on a terminal, lines elsewhere, and few looks at the device."""

from __future__ import annotations

import io
from itertools import count

import torch

from diffusion_priors.diffusion.levels import CLEAN
from diffusion_priors.diffusion.tiles import TiledNetwork
from diffusion_priors.evaluation.restoration.progress import ProgressReport
from diffusion_priors.solvers.base import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class KnownResidual:
    """A problem and its measurement, whose residual is known. Counts how often it is asked for."""

    looks = 0

    @property
    def measurement(self):
        return self

    def rms_residual(self, x0):
        self.looks += 1
        return torch.tensor([0.1, 0.3])


def run(stream, steps: int, every: float, residual: bool = True) -> KnownResidual:
    report, problem = ProgressReport(2, every, stream, residual), KnownResidual()
    for _ in range(2):
        for index in range(steps):
            report(problem, Progress(index, steps, CLEAN, torch.zeros(1), torch.zeros(1)))
    report.close()
    return problem


def test_progress_is_lines_off_a_terminal():
    stream = io.StringIO()
    run(stream, 5, every=0.0)
    first = stream.getvalue().splitlines()[0]
    assert first.startswith("batch 1/2, step 1/5, residual 0.2000, ") and first.endswith(" s left")
    assert "batch 2/2, step 4/5" in stream.getvalue()


def test_progress_is_a_bar_on_a_terminal():
    stream = Terminal()
    run(stream, 5, every=0.0)
    assert "10/10" in stream.getvalue() and "residual 0.2000" in stream.getvalue()


def test_progress_looks_at_the_device_seldom():
    """Each look waits for the device: of thousands of fast steps, only the last one is looked at."""
    assert run(io.StringIO(), 2000, every=60.0).looks == 1


def test_no_residual_is_computed_for_solvers_without_a_measurement():
    for stream in (io.StringIO(), Terminal()):
        assert run(stream, 5, every=0.0, residual=False).looks == 0
        assert "residual" not in stream.getvalue() and stream.getvalue()


def test_the_tiles_of_a_step_are_shown():
    """A network that sees 8 x 20 pixels in tiles of 8 x 8, inside another module, off a terminal."""
    stream, network = io.StringIO(), torch.nn.Sequential(TiledNetwork(Identity(), (8, 8), 2))
    report = ProgressReport(1, 0.0, stream)
    report.watch(network)
    network[0](torch.zeros(1, 3, 8, 20), torch.zeros(1))
    report.close()
    network[0](torch.zeros(1, 3, 8, 20), torch.zeros(1))
    assert stream.getvalue().splitlines() == [f"step 1, tile {number}/3" for number in (1, 2, 3)]


def test_a_terminal_shows_the_tiles_of_the_first_step_too(monkeypatch):
    """A second passes with each look at the clock, so that every tile and every step is drawn."""
    monkeypatch.setattr("diffusion_priors.evaluation.restoration.progress.monotonic", count().__next__)
    stream, network = Terminal(), TiledNetwork(Identity(), (8, 8), 2)
    report = ProgressReport(1, stream=stream, residual=False)
    report.watch(network)
    for index in range(2):
        network(torch.zeros(1, 3, 8, 20), torch.zeros(1))
        report(KnownResidual(), Progress(index, 2, CLEAN, torch.zeros(1), torch.zeros(1)))
    report.close()
    first, last = stream.getvalue().index("tile 3/3"), stream.getvalue().rindex("2/2")
    assert first < stream.getvalue().index("1/2") < last


class Identity(torch.nn.Module):
    def forward(self, x, t):
        return x
