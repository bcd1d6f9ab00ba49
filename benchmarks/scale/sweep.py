"""What a job of a sweep costs in addition to its sampling: python benchmarks/scale/sweep.py --help.

`evaluate.py -m` runs jobs of one image and one step in one process. The time of a job is that from the end of the job before;
the seconds of its sampling are subtracted. `--against` names another checkout of this project: its sweeps and those of this one
alternate. Further overrides are passed on, after a --.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median

import torch
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from benchmarks.scale.commands import ROOT, evaluate, job_times
from benchmarks.timing.machine import footnote
from benchmarks.timing.ratios import ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=6)
    parser.add_argument("--turns", type=int, default=1, help="sweeps of each checkout")
    parser.add_argument("--against", type=Path, default=None, help="another checkout, to compare with")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("overrides", nargs="*")
    chosen = parser.parse_args()
    checkouts = {"this": ROOT} | ({} if chosen.against is None else {"the other": chosen.against.resolve()})
    fixed: dict[str, list[float]] = {name: [] for name in checkouts}
    for _ in range(chosen.turns):
        for name, root in checkouts.items():
            fixed[name] += swept(root, chosen.jobs, [f"trainer.threads={chosen.threads}", *chosen.overrides])
    rows = [[name, median(times), min(times), max(times)] for name, times in fixed.items()]
    print(tabulate(rows, headers=["checkout", "seconds a job, median", "least", "most"], floatfmt=".2f", tablefmt="pipe"))
    if len(fixed) == 2:
        print(f"the other takes {ratio(*reversed(fixed.values()))} times as long")
    print(footnote(torch.device("cpu")))


def swept(root: Path, jobs: int, overrides: list[str]) -> list[float]:
    """The fixed cost of each job of a sweep over seeds, from the second on."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "sweep"
        image = ROOT / "examples" / "faces" / "face-1.png"
        seeds = "seed=" + ",".join(map(str, range(jobs)))
        evaluate("-m", f"data.root={image}", "grid.steps=1", seeds, "trainer=cpu", *overrides, f"output_dir={folder}", root=root)
        return [total - sampling for total, sampling in job_times([path.parent for path in folder.glob("*/summary.json")])]


if __name__ == "__main__":
    main()
