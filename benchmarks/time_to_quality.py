"""PSNR and LPIPS against network evaluations and seconds: python benchmarks/time_to_quality.py OUTPUT.

Every solver restores the same images with the bundled prior in 10 to 1000 steps. The scores go to OUTPUT/points.csv as they come, one line
an image; the same command resumes. It ends after --minutes: run it again, or with more minutes, until all points are there. A table of who
reaches the quality of DPS with the most steps first is printed, and charts are drawn in OUTPUT. Without LPIPS weights its column is nan.

The seconds of a point are those of its run. If the machine did other work meanwhile, call the command again with --retime when it is
idle: it measures the seconds of a network evaluation for each solver and task, and corrects the seconds of all points.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from peers_settings import KARRAS, RENOISE, TASKS, TUNED_ON  # noqa: E402

from benchmarks.configured import configured, faces64  # noqa: E402
from benchmarks.timing.curves import Key, append, plot, read, set_seconds, table  # noqa: E402
from benchmarks.timing.machine import PRECISIONS, machine, now  # noqa: E402
from diffusion_priors.diffusion.denoiser import Denoiser  # noqa: E402
from diffusion_priors.diffusion.image_random import ImageRandom, image_generator  # noqa: E402
from diffusion_priors.evaluation.metrics.lpips import LPIPS  # noqa: E402
from diffusion_priors.evaluation.metrics.per_image import Metrics  # noqa: E402
from diffusion_priors.evaluation.restoration.images import CleanImages  # noqa: E402
from diffusion_priors.images.fit import Crop  # noqa: E402
from diffusion_priors.operators.measurement import Measurement  # noqa: E402
from diffusion_priors.solvers.base import Problem  # noqa: E402

NARROW = "grid=karras grid.rho=1 grid.largest=2 grid.smallest=0.02"
SETTINGS = {
    "dps": {"box": "", "blur": ""},
    "dps_karras": {"box": f"solver=dps {KARRAS} {RENOISE} solver.zeta=0.5", "blur": f"solver=dps {KARRAS} solver.zeta=0.5"},
    "ddrm": {"box": f"{NARROW} solver.eta=0.95", "blur": f"{KARRAS} solver.cutoff=0.5"},
    "ddnm_plus": {"box": "", "blur": ""},
    "diffpir": {"box": f"{KARRAS} sampler.zeta=1.0 solver.lam=1.0", "blur": f"{KARRAS} sampler.zeta=1.0 solver.lam=1.0"},
    "pigdm": {"box": f"{KARRAS} solver.prior_variance=4.0 {RENOISE}", "blur": f"{KARRAS} solver.prior_variance=4.0 {RENOISE}"},
    "mmps": {"box": f"{KARRAS} {RENOISE}", "blur": f"{KARRAS} solver.iterations=3"},
    "fast": {"box": "experiment=fast", "blur": "experiment=fast"},
    "dds": {"box": "", "blur": ""},
    "daps": {"box": "grid=karras", "blur": "grid=karras"},
}
"""Solver → its overrides for masks and for blurs: those that docs/comparison.md chose, and the defaults elsewhere."""
MOST = {"dps": 1000, "dps_karras": 250, "mmps": 50, "fast": 50, "daps": 50}
"""The most steps of a solver; 100 for the others."""
SHORT = 10
"""Steps of a run that is only timed."""


class Bench:
    """The images, the prior and the scores. `rows` counts the images that the network has seen."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        prior, self.device = faces64(), torch.device(chosen.device)
        prior.network.to(self.device, memory_format=torch.channels_last).register_forward_hook(self._count)
        self.schedule, self.denoiser, self.rows = prior.image_schedule, Denoiser(prior, PRECISIONS[chosen.precision]).to(self.device), 0
        self.images = CleanImages(chosen.images, prior.channels, prior.size, Crop())
        self.images.only(range(min(chosen.count, len(self.images))))
        self.metrics = Metrics(LPIPS(trunk=chosen.trunk))
        self.metrics.prepare()
        print(self.metrics.footnote, file=sys.stderr, flush=True)
        self.truth = torch.stack([self.images.given(i) for i in range(len(self.images))])
        self.run(Key("box", "dps", 1))  # warm

    def _count(self, network: object, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.rows += len(output)

    def run(self, key: Key) -> list[dict]:
        """The rows of a point, an image each."""
        ids, truth = self.images.ids, self.truth.to(self.device)
        own = SETTINGS[key.solver][TUNED_ON[key.task]].split()
        solver = [] if any(word.startswith(("solver=", "experiment=")) for word in own) else [f"solver={key.solver}"]
        method = configured(*TASKS[key.task], *solver, *own, f"grid.steps={key.steps}")
        generators = [image_generator(0, name, "measurement") for name in ids]
        drawn = method.operator.draw(truth, generators).to(self.device)
        measurement = Measurement.of(drawn, method.noise_model, truth, generators)
        rng = ImageRandom([image_generator(0, name, 0, "sampling") for name in ids])
        problem = Problem(self.denoiser, measurement, method.sampler, rng, torch.zeros_like(truth))
        plan = method.solver.plan(method.grid, self.schedule)
        self.denoiser.reset()
        self.rows, started = 0, now(self.device)
        x0 = method.solver.solve(problem, plan).x0
        seconds = (now(self.device) - started) / len(ids)
        shared = {"forwards": self.rows / len(ids), "vjps": self.denoiser.vjps, "seconds": f"{seconds:.4f}"}
        shared["machine"] = machine(self.device).replace(",", ";")
        scores = self.metrics(x0.cpu(), self.truth)
        return [
            {"image": name.replace(",", ";"), "psnr": f"{psnr:.4f}", "lpips": f"{lpips:.5f}"} | shared
            for name, psnr, lpips in zip(ids, scores["psnr"], scores["lpips"], strict=True)
        ]


def keys(chosen: argparse.Namespace) -> Iterator[Key]:
    """The points, those of few steps first."""
    for steps in sorted(chosen.steps):
        for task in chosen.tasks:
            yield from (Key(task, solver, steps) for solver in chosen.solvers if steps <= MOST.get(solver, 100))


def retime(bench: Bench, path: Path) -> None:
    """Measure each solver on each task once more, in three short runs, and correct its points: their evaluations times the median.

    The runs of all solvers alternate. A network evaluation of a solver takes the same time, however many steps it walks.
    """
    short = [Key(task, solver, SHORT) for task, solver in dict.fromkeys(key[:2] for key in read(path))]
    runs = [{key[:2]: _per_evaluation(bench.run(key)[0]) for key in short} for _ in range(3)]
    set_seconds(path, {pair: median(run[pair] for run in runs) for pair in runs[0]}, machine(bench.device).replace(",", ";"))


def _per_evaluation(row: dict) -> float:
    return float(row["seconds"]) / (row["forwards"] + row["vjps"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--images", default=str(ROOT / "examples" / "faces"), help="folder of clean images (default the four examples)")
    parser.add_argument("--count", type=int, default=8, help="images, the first by name, in one batch (default 8)")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--solvers", nargs="+", choices=SETTINGS, default=[name for name in SETTINGS if name != "dps_karras"])
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 20, 50, 100, 250, 1000])
    parser.add_argument("--minutes", type=float, default=6.0, help="start no point after these (default 6)")
    parser.add_argument(
        "--retime", action="store_true", help="only time the solvers of the points that are there, and correct their seconds"
    )
    parser.add_argument("--precision", choices=PRECISIONS, default="32", help="of the network; each needs an OUTPUT of its own")
    parser.add_argument("--trunk", help="LPIPS trunk weights (AlexNet)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    path, started = chosen.output / "points.csv", perf_counter()
    left = [key for key in keys(chosen) if key not in read(path)]
    if chosen.retime:
        retime(Bench(chosen), path)
    elif left:
        bench = Bench(chosen)
        while left and perf_counter() - started < 60.0 * chosen.minutes:
            append(path, left[0], bench.run(left[0]))
            print(*left.pop(0), file=sys.stderr, flush=True)
    points = list(read(path).values())
    plot(points, chosen.output)
    print(table(points))
    print(f"\n{len(left)} points are left" if left else "\nall points are there", *sorted({point.machine for point in points}), sep="\n")


if __name__ == "__main__":
    main()
