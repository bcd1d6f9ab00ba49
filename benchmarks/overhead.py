"""What a solver adds to the network calls it must make: python benchmarks/overhead.py.

Per network, batch size and solver, the time of a run divided by that of its bare network calls (a forward pass a
step, or a forward pass and a vector-Jacobian product). Runs and bare calls alternate in one process, and the
median ratio over the pairs is printed, since single timings on a shared machine mean little. "own ms" is what a
step of the solver takes around a network that does nothing: the same overhead, less noisily measured.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from tabulate import tabulate
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.grids import Linspace
from diffusion_priors.diffusion.image_random import ImageRandom, image_generator
from diffusion_priors.diffusion.networks.unet import UNet
from diffusion_priors.diffusion.preconditioning import Eps
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.priors.folder import from_folder
from diffusion_priors.diffusion.schedules import Linear
from diffusion_priors.diffusion.transitions import FixedSmall
from diffusion_priors.operators.inpainting import InpaintBox
from diffusion_priors.operators.measurement import Measurement
from diffusion_priors.operators.noise_models import Gaussian
from diffusion_priors.solvers.annealing import Likelihood
from diffusion_priors.solvers.base import Problem, Solution, Solver, Step
from diffusion_priors.solvers.dps import DPS
from diffusion_priors.solvers.dps_score import DPSScore
from diffusion_priors.solvers.score_ald import ScoreALD
from diffusion_priors.solvers.unconditional import Unconditional

SOLVERS: dict[str, Solver] = {
    "unconditional": Unconditional(),
    "score_ald": ScoreALD(Likelihood()),
    "dps": DPS(),
    "dps_score": DPSScore(),
}


def bundled() -> Prior:
    return from_folder(str(Path(__file__).resolve().parent.parent / "diffusion" / "weights" / "faces64"))


def random_ffhq() -> Prior:
    """The network of ffhq_10m.pt with random weights, on 64 x 64 images."""
    torch.manual_seed(0)
    return Prior(UNet(), Linear(), Eps(), size=(64, 64))


HEADERS = ["network", "batch", "solver", "bare call", "bare ms per step", "solver / bare", "own ms per step", "1 + own / bare"]
PRIORS = {"faces64": bundled, "ffhq256-random": random_ffhq}


def problem_of(prior: Prior, batch: int, device: torch.device) -> Problem:
    like = torch.zeros(batch, 3, *prior.size, device=device)
    generators = [image_generator(0, b, "measurement") for b in range(batch)]
    operator = InpaintBox().draw(like, generators).to(device)
    measurement = Measurement.of(operator, Gaussian(), like, generators)
    rng = ImageRandom([image_generator(0, b, "sampling") for b in range(batch)])
    return Problem(Denoiser(prior).to(device), measurement, FixedSmall(), rng, like)


def bare_calls(prior: Prior, problem: Problem, steps: int, with_vjp: bool) -> Callable[[], None]:
    """`steps` calls of the network itself on an image of the same kind, with a vector-Jacobian product each or not."""
    x = problem.rng.normal(problem.like)
    t = torch.full((len(x),), 500, device=x.device)

    def forward() -> None:
        with torch.no_grad():
            prior.network(x, t)

    def forward_and_vjp() -> None:
        leaf = x.detach().requires_grad_()
        output = prior.network(leaf, t)
        torch.autograd.grad(output, leaf, output.detach())

    def run() -> None:
        for _ in range(steps):
            (forward_and_vjp if with_vjp else forward)()

    return run


class Nothing(nn.Module):
    """ε̂ = x_t, at the price of one multiplication."""

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return x * 1.0


def own_time(solver: Solver, batch: int, plan: list[Step], device: torch.device) -> float:
    """Seconds a step of the solver around a network that does nothing; the median of 20 runs."""
    problem = problem_of(Prior(Nothing(), Linear(), Eps(), size=(64, 64)), batch, device)
    return median(seconds(lambda: solver.solve(problem, plan), device) for _ in range(20)) / len(plan)


def seconds(run: Callable[[], object], device: torch.device) -> float:
    started = perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=7, help="timed pairs of run and bare calls (default 7)")
    parser.add_argument("--steps", type=int, default=4, help="steps a run (default 4)")
    parser.add_argument("--priors", nargs="+", choices=PRIORS, default=list(PRIORS))
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--solvers", nargs="+", choices=SOLVERS, default=list(SOLVERS))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device = torch.device(args.device)

    rows = []
    for name in args.priors:
        prior = PRIORS[name]()
        prior.network.to(device, memory_format=torch.channels_last)
        for batch in args.batches:
            problem = problem_of(prior, batch, device)
            for label in args.solvers:
                solver = SOLVERS[label]
                plan = solver.plan(Linspace(args.steps), prior.image_schedule)

                def run(solver: Solver = solver, problem: Problem = problem, plan: list[Step] = plan) -> Solution:
                    return solver.solve(problem, plan)

                with_vjp = run().vjps > 0
                bare = bare_calls(prior, problem, args.steps, with_vjp)
                bare()
                pairs = [(seconds(run, device), seconds(bare, device)) for _ in range(args.pairs)]
                ratio = median(a / b for a, b in pairs)
                per_step = median(b for _, b in pairs) / args.steps * 1e3
                own = own_time(solver, batch, plan, device) * 1e3
                call = "forward + vjp" if with_vjp else "forward"
                rows.append([name, batch, label, call, f"{per_step:.1f}", f"{ratio:.3f}", f"{own:.2f}", f"{1 + own / per_step:.3f}"])
                print(f"{name}, batch {batch}, {label}: {ratio:.3f}", file=sys.stderr, flush=True)
    print(tabulate(rows, headers=HEADERS, disable_numparse=True))


if __name__ == "__main__":
    main()
