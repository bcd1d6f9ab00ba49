"""How close a network call is to the machine's limit: python benchmarks/roofline.py.

The operations of a call are counted from the shapes of its layers, as the network defines them: on a CPU, a frozen UNet computes the
convolution of a doubled image with 4/9 of its operations. The ceiling is the speed of the network's convolutions, each of
them alone in the layout that suits it best, in the same precision and batch. "share" is the speed of the whole call over the ceiling.
A call is timed without a gradient, and with one vector-Jacobian product. Where the machine computes half precision in full, bf16 is
slower than its own ceiling says: compare with the ceiling of 32.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from itertools import product
from pathlib import Path
from statistics import median

import torch
from tabulate import tabulate
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.configured import faces64
from benchmarks.timing.convolutions import ceiling, convolutions, flops, inputs
from benchmarks.timing.machine import footnote, seconds
from diffusion_priors.diffusion.networks.unet import UNet

NETWORKS: dict[str, Callable[[], tuple[nn.Module, tuple[int, int]]]] = {
    "faces64": lambda: (faces64().network, (64, 64)),
    "ffhq256": lambda: (UNet(), (256, 256)),
}
LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
DTYPES = {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}
HEADERS = ["network", "pass", "batch", "precision", "layout", "compiled", "GFLOP per image", "ms per image", "GFLOP/s", "ceiling", "share"]


def call(
    network: nn.Module, size: tuple[int, int], batch: int, dtype: torch.dtype, device: torch.device, gradient: bool
) -> Callable[[], object]:
    """One call, on request with a vector-Jacobian product."""
    x, t = inputs(size, batch, device, gradient)
    half = dtype != torch.float32

    def run() -> None:
        with torch.set_grad_enabled(gradient):
            with torch.autocast(device.type, dtype) if half else nullcontext():
                output = network(x, t)
            if gradient:
                torch.autograd.grad(output, x, output.detach())

    return run


def warm_seconds(run: Callable[[], object], repetitions: int, device: torch.device) -> float:
    """The median of `repetitions` runs after two that are not timed."""
    run()
    run()
    return median(seconds(run, device) for _ in range(repetitions))


class Table:
    """The rows of one network. A ceiling is measured once for each pass, batch and precision."""

    def __init__(self, name: str, chosen: argparse.Namespace) -> None:
        self.name, self.device, self.repetitions = name, torch.device(chosen.device), chosen.repetitions
        torch.manual_seed(0)
        network, self.size = NETWORKS[name]()
        self.network = network.eval().requires_grad_(False).to(self.device)
        defined = deepcopy(self.network).to("meta")  # where no layer takes a shorter way
        self.shapes = convolutions(defined, self.size)
        self.flops = flops(defined, self.size)
        self.ceilings: dict[tuple[bool, int, torch.dtype], float] = {}

    def row(self, gradient: bool, batch: int, precision: str, layout: str, compiled: bool) -> list[str]:
        self.network.to(memory_format=LAYOUTS[layout])
        network = torch.compile(self.network) if compiled else self.network
        dtype = DTYPES[precision]
        spent = warm_seconds(call(network, self.size, batch, dtype, self.device, gradient), self.repetitions, self.device)
        speed = self.flops[gradient] * batch / spent / 1e9
        key = gradient, batch, dtype
        if key not in self.ceilings:
            self.ceilings[key] = ceiling(self.shapes, batch, dtype, self.device, self.repetitions, gradient)
        kind = "forward + vjp" if gradient else "forward"
        found = [f"{self.flops[gradient] / 1e9:.1f}", f"{1e3 * spent / batch:.1f}", f"{speed:.0f}", f"{self.ceilings[key]:.0f}"]
        return [self.name, kind, str(batch), precision, layout, "yes" if compiled else "no", *found, f"{speed / self.ceilings[key]:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=["faces64"])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--precisions", nargs="+", choices=DTYPES, default=["32"])
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=list(LAYOUTS))
    parser.add_argument("--compile", action="store_true", help="compiled rows too; each takes minutes at first")
    parser.add_argument("--repetitions", type=int, default=15, help="timed calls of a row, and of each convolution (default 15)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    rows = []
    for name in chosen.networks:
        table = Table(name, chosen)
        kinds = product(chosen.precisions, chosen.layouts, [False, True] if chosen.compile else [False], chosen.batches, [False, True])
        for precision, layout, compiled, batch, gradient in kinds:
            rows.append(table.row(gradient, batch, precision, layout, compiled))
            print(*rows[-1], file=sys.stderr, flush=True)
    print(tabulate(rows, headers=HEADERS, tablefmt="pipe", disable_numparse=True))
    print(f"\n{footnote(torch.device(chosen.device))}")


if __name__ == "__main__":
    main()
