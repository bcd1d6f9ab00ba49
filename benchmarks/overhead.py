"""What a solver adds to the network calls that it makes: python benchmarks/overhead.py.

The network records each call of a run, with its rows and its vector-Jacobian products. "bare" is the time of these calls
alone: runs and bare calls alternate in one process, and the median ratio over the pairs is printed, since single
timings on a shared machine mean little. "own ms" is what a step of the solver takes around a network that does nothing: the
same overhead, less noisily measured. Inner loops without the network, such as chains and conjugate gradients, are part of it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from tabulate import tabulate
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.configured import SOLVERS, Configured, configured, faces64, random_prior
from benchmarks.timing.machine import seconds
from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.image_random import ImageRandom, image_generator
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.operators.measurement import Measurement
from diffusion_priors.solvers.base import Problem

PRIORS: dict[str, Callable[[], Prior]] = {"faces64": faces64, "ffhq256-random": random_prior}
HEADERS = ["network", "batch", "solver", "calls + vjp", "bare ms per step", "solver / bare", "own ms per step", "1 + own / bare"]


class Nothing(nn.Module):
    """ε̂ = x_t, at the price of one multiplication."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return x * 1.0


class Recorded(nn.Module):
    """`network`, with a list of its calls: [rows, vector-Jacobian products]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.calls: list[list[int]] = []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        call = [len(x), 0]
        self.calls.append(call)
        output = self.network(x, t)
        if output.requires_grad:
            output.register_hook(lambda gradient: call.__setitem__(1, call[1] + 1))
        return output


def bare_run(network: nn.Module, calls: list[list[int]], like: Tensor) -> None:
    """The calls alone, on noise."""
    for rows, vjps in calls:
        x = torch.randn(rows, *like.shape[1:], device=like.device)
        t = torch.full((rows,), 500, device=like.device)
        with torch.set_grad_enabled(vjps > 0):
            leaf = x.requires_grad_(vjps > 0)
            output = network(leaf, t)
            for left in reversed(range(vjps)):
                torch.autograd.grad(output, leaf, output.detach(), retain_graph=left > 0)


def problem_of(prior: Prior, method: Configured, batch: int, device: torch.device) -> Problem:
    like = torch.zeros(batch, 3, *prior.size, device=device)
    generators = [image_generator(0, b, "measurement") for b in range(batch)]
    operator = method.operator.draw(like, generators).to(device)
    measurement = Measurement.of(operator, method.noise_model, like, generators)
    rng = ImageRandom([image_generator(0, b, "sampling") for b in range(batch)])
    return Problem(Denoiser(prior).to(device), measurement, method.sampler, rng, like)


def measure(prior: Prior, method: Configured, batch: int, device: torch.device, pairs: int) -> list[str]:
    """Columns 4 to 8 of a row."""
    recorded = Recorded(prior.network)
    problem = problem_of(prior.with_network(recorded), method, batch, device)
    plan = method.solver.plan(method.grid, prior.image_schedule)

    def run() -> None:
        recorded.calls = []
        method.solver.solve(problem, plan)

    def bare() -> None:
        bare_run(prior.network, recorded.calls, problem.like)

    run()
    bare()
    timed = [(seconds(run, device), seconds(bare, device)) for _ in range(pairs)]
    idle = problem_of(prior.with_network(Nothing()), method, batch, device)
    own = median(seconds(lambda: method.solver.solve(idle, plan), device) for _ in range(2 * pairs)) / len(plan)
    step = median(b for _, b in timed) / len(plan)
    calls, vjps = len(recorded.calls) / len(plan), sum(made for _, made in recorded.calls) / len(plan)
    ratio = median(a / b for a, b in timed)
    return [f"{calls:.3g} + {vjps:.3g}", f"{step * 1e3:.1f}", f"{ratio:.3f}", f"{own * 1e3:.2f}", f"{1 + own / step:.3f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5, help="timed pairs of run and bare calls (default 5)")
    parser.add_argument("--steps", type=int, default=4, help="levels of a run (default 4)")
    parser.add_argument("--operator", default="inpaint_box")
    parser.add_argument("--priors", nargs="+", choices=PRIORS, default=["faces64"])
    parser.add_argument("--batches", type=int, nargs="+", default=[8])
    parser.add_argument("--solvers", nargs="+", choices=SOLVERS, default=SOLVERS)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    chosen = parser.parse_args()
    device = torch.device(chosen.device)

    rows = []
    for name in chosen.priors:
        prior = PRIORS[name]()
        prior.network.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
        for batch in chosen.batches:
            for solver in chosen.solvers:
                method = configured(f"solver={solver}", f"operator={chosen.operator}", f"grid.steps={chosen.steps}")
                rows.append([name, str(batch), solver, *measure(prior, method, batch, device, chosen.pairs)])
                print(*rows[-1], file=sys.stderr, flush=True)
    print(tabulate(rows, headers=HEADERS, tablefmt="pipe", disable_numparse=True))


if __name__ == "__main__":
    main()
