"""What trainer.checkpointing saves in memory and costs in time: python benchmarks/memory.py.

The network of ffhq_10m.pt with random weights takes steps of a solver on random images, with and without recomputation. The largest
memory is that of a process of its own for each row: of the GPU where there is one, else of the machine. "before the step" holds what is
imported and the weights; the other columns are what a step adds to it. The times are the median of steps that alternate in one process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import torch
from tabulate import tabulate
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.configured import SOLVERS, configured
from benchmarks.overhead import problem_of
from benchmarks.timing.machine import footnote
from benchmarks.timing.ratios import alternate, ratio
from diffusion_priors.diffusion.networks.unet import UNet
from diffusion_priors.diffusion.preconditioning import Eps
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.schedules import Linear
from diffusion_priors.runs.memory import peak_mib

PARTS = ("authors", "plain", "checkpointing")
MEMORY = [
    "before the step (MiB)",
    "added by guided-diffusion's code",
    "by this project",
    "with checkpointing",
    "ratio to the first",
]
HEADERS = ["batch", *MEMORY, "s per step", "with checkpointing (s)", "ratio of times"]


class Authors(nn.Module):
    """The network of guided-diffusion in the code that DeepInverse took over from its authors, with the same flags as FFHQ-256 has here."""

    def __init__(self) -> None:
        super().__init__()
        from deepinv.models import DiffUNet

        self.network = DiffUNet(pretrained=None)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.network.forward_diffusion(x, t)


class Step:
    """One step of a solver on random images of `size`, on request with recomputation."""

    def __init__(self, chosen: argparse.Namespace, batch: int) -> None:
        torch.manual_seed(0)
        self.device = torch.device(chosen.device)
        network = (Authors() if chosen.part == "authors" else UNet(num_channels=chosen.channels)).eval().requires_grad_(False)
        self.network = network.to(self.device, memory_format=torch.channels_last)
        method = configured(f"solver={chosen.solver}", "operator=inpaint_box", "grid.steps=1")
        prior = Prior(self.network, Linear(), Eps(), size=(chosen.size, chosen.size))
        self.plan = method.solver.plan(method.grid, prior.image_schedule)
        self.solver, self.problem = method.solver, problem_of(prior, method, batch, self.device)

    def run(self, checkpointing: bool) -> None:
        self.network.recomputes = checkpointing
        self.solver.solve(self.problem, self.plan)


def child(chosen: argparse.Namespace) -> None:
    """Print what one process found: its memory, or the times of its steps."""
    step = Step(chosen, chosen.batches[0])
    if chosen.part == "times":
        found = alternate([lambda: step.run(False), lambda: step.run(True)], chosen.pairs, step.device)
    else:
        checkpoint(torch.sin, torch.zeros(1, requires_grad=True), use_reentrant=False)  # its imports are not the step's
        before = peak_mib(step.device)
        step.run(chosen.part == "checkpointing")
        found = [before, peak_mib(step.device)]
    print(json.dumps(found))


def in_a_process(chosen: argparse.Namespace, batch: int, part: str) -> list:
    """What `child` prints."""
    settings = {"solver": chosen.solver, "size": chosen.size, "channels": chosen.channels, "pairs": chosen.pairs}
    settings |= {"device": chosen.device, "threads": chosen.threads, "batches": batch, "part": part}
    command = [sys.executable, __file__, *(word for key, value in settings.items() for word in (f"--{key}", str(value)))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def row(chosen: argparse.Namespace, batch: int) -> list[str]:
    parts = PARTS if find_spec("deepinv") else PARTS[1:]
    found = {part: in_a_process(chosen, batch, part) for part in parts}
    added = {part: largest - before for part, (before, largest) in found.items()}
    memory = [str(batch), f"{found['plain'][0]:.0f}", *(f"{added[part]:.0f}" if part in added else "" for part in PARTS)]
    memory.append(f"{added['checkpointing'] / added['authors']:.2f}" if "authors" in added else "")
    if not chosen.pairs:
        return [*memory, "", "", ""]
    times = in_a_process(chosen, batch, "times")
    return [*memory, *(f"{median(seconds):.2f}" for seconds in times), str(ratio(times[1], times[0]))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--solver", choices=SOLVERS, default="dps")
    parser.add_argument("--batches", type=int, nargs="+", default=[1])
    parser.add_argument("--size", type=int, default=256, help="side of the images (default 256)")
    parser.add_argument("--channels", type=int, default=128, help="of the network's first level (default 128)")
    parser.add_argument("--pairs", type=int, default=5, help="timed pairs of steps; 0 measures the memory alone (default 5)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--part", choices=[*PARTS, "times"], help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    if chosen.part:
        child(chosen)
        return
    rows = [row(chosen, batch) for batch in chosen.batches]
    print(tabulate(rows, headers=HEADERS, tablefmt="pipe", disable_numparse=True))
    print(f"\n{chosen.solver}, {chosen.size} x {chosen.size}, {footnote(torch.device(chosen.device))}")


if __name__ == "__main__":
    main()
