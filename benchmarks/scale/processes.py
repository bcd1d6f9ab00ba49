"""How much faster two processes evaluate than one, with one thread each: python benchmarks/scale/processes.py --images FOLDER.

`evaluate.py trainer=ddp` restores the same images with one process and with several, in turns. The steady rate is that of all
batches after each process's first. The rest of a command is its fixed cost: start, first look at the images, end. More processes
have more of it, because Lightning starts the others once the first has checked its images. From both follows how long one process
must work until the whole command reaches the aim.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from benchmarks.scale.commands import batch_ends, evaluate, records
from benchmarks.timing.machine import footnote


class Timing(NamedTuple):
    """The seconds of a whole command, its images per second when all processes work, and what is left: its fixed cost."""

    whole: float
    rate: float
    fixed: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True)
    parser.add_argument("--count", type=int, default=64, help="images; as many for each process")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=10, help="of DPS")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--aim", type=float, default=1.9)
    parser.add_argument("overrides", nargs="*")
    chosen = parser.parse_args()
    found: dict[int, list[Timing]] = {1: [], chosen.processes: []}
    for _ in range(chosen.turns):
        for processes, timings in found.items():
            timings.append(timed(chosen, processes))
    one, several = (Timing(*map(median, zip(*timings, strict=True))) for timings in found.values())
    rows = [[processes, *timing] for processes, timing in zip(found, (one, several), strict=True)]
    print(tabulate(rows, headers=["processes", "seconds", "images a second", "fixed seconds"], floatfmt=".2f", tablefmt="pipe"))
    print(f"ratio: {several.rate / one.rate:.2f} steady, {one.whole / several.whole:.2f} of the whole command")
    print(f"the whole command reaches {chosen.aim:g} where one process works for {work_for(chosen.aim, one, several):.0f} s")
    print(footnote(torch.device("cpu")))


def timed(chosen: argparse.Namespace, processes: int) -> Timing:
    """One command."""
    with tempfile.TemporaryDirectory() as place:
        run = Path(place) / "run"
        sharing = ["trainer=ddp", "trainer.accelerator=cpu", f"trainer.devices={processes}", "trainer.threads=1"]
        images = [f"data.root={chosen.images}", f"data.limit={chosen.count}", f"batch_size={chosen.batch_size}"]
        whole = evaluate(*images, f"grid.steps={chosen.steps}", *sharing, *chosen.overrides, f"output_dir={run}")
        rate = steady(batch_ends(run, chosen.batch_size, processes), chosen.batch_size)
        return Timing(whole, rate, whole - len(records(run)) / rate)


def steady(ends: list[list[float]], batch_size: int) -> float:
    """Images per second of all processes, from the end of each one's first batch to the end of its last."""
    if min(map(len, ends)) < 2:
        raise SystemExit("each process needs two batches; raise --count or lower --batch-size")
    return sum(batch_size * (len(own) - 1) / (own[-1] - own[0]) for own in ends)


def work_for(aim: float, one: Timing, several: Timing) -> float:
    """The W of (W + fixed_1) / (W/ratio + fixed_n) = aim; infinite where the steady ratio is not above it."""
    ratio = several.rate / one.rate
    return max(0.0, (aim * several.fixed - one.fixed) / (1.0 - aim / ratio)) if ratio > aim else float("inf")


if __name__ == "__main__":
    main()
