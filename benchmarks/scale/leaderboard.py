"""Reading a large sweep: the seconds and the memory of its leaderboard: python benchmarks/scale/leaderboard.py --help.

Folders of finished jobs with records of the usual size are written, then read and compared in a process of its own, as at the end
of `evaluate.py -m`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import torch
from tabulate import tabulate

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from sweep_folder import base_config, node, record, write_job  # noqa: E402

from benchmarks.timing.machine import footnote  # noqa: E402
from diffusion_priors.evaluation.sweeps.jobs import read_jobs  # noqa: E402
from diffusion_priors.evaluation.sweeps.leaderboard import write_leaderboard  # noqa: E402
from diffusion_priors.runs.memory import peak_mib  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--images", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--read", type=Path, default=None, help="the folder of a sweep: measure this one alone")
    chosen = parser.parse_args()
    if chosen.read is not None:
        print(*measured(chosen.read))
        return
    rows = [[jobs, images, *apart(jobs, images)] for jobs in chosen.jobs for images in chosen.images]
    headings = ["jobs", "images of each", "seconds to read", "seconds to write", "MiB added"]
    print(tabulate(rows, headers=headings, floatfmt=("", "", ".2f", ".2f", ".0f"), tablefmt="pipe"))
    print(footnote(torch.device("cpu")))


def apart(jobs: int, images: int) -> list[float]:
    """`measured` in a process of its own."""
    with tempfile.TemporaryDirectory() as place:
        fill(Path(place), jobs, images)
        line = [sys.executable, __file__, "--read", place]
        return [float(value) for value in subprocess.run(line, check=True, capture_output=True, text=True).stdout.split()]


def fill(root: Path, jobs: int, images: int) -> None:
    """A sweep over a step size whose best value is in the middle."""
    for number in range(jobs):
        zeta = (number + 1) / jobs
        values = [record(f"image-{i:05}", psnr=25.0 - (zeta - 0.5) ** 2 + i % 7, ssim=0.5, lpips=0.3) for i in range(images)]
        write_job(root / f"solver.zeta={zeta:g}", values, base_config(solver=node("diffusion_priors.solvers.dps.DPS", zeta=zeta)))


def measured(root: Path) -> tuple[float, float, float]:
    """Seconds to read the summaries, seconds to compare the records and to write tables and charts, and MiB that this added."""
    before, started = peak_mib(torch.device("cpu")), perf_counter()
    read_jobs(root)
    read = perf_counter()
    write_leaderboard(root)
    return read - started, perf_counter() - read, peak_mib(torch.device("cpu")) - before


if __name__ == "__main__":
    main()
