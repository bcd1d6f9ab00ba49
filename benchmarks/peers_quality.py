"""DeepInverse against this project: python benchmarks/peers_quality.py OUTPUT --tuning FOLDER --images FOLDER.

Five methods that both have restore the same faces from the same measurements with the same network. Each side first tries
its settings on the images of --tuning, as many settings for one side as for the other; the best of them, by PSNR − 100 LPIPS,
then restores the images of --images. Every result is a file of its own in OUTPUT: the same command resumes, and several
processes share the work. --report prints the tables of what is there, and writes them to OUTPUT as CSV.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from time import perf_counter, sleep

import torch
from filelock import FileLock, Timeout
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from configured import configured, faces64  # noqa: E402
from peers_jobs import BATCH, Job, jobs, mean  # noqa: E402
from peers_settings import EXTRAS, OURS, TASKS, THEIRS  # noqa: E402

from diffusion_priors.diffusion.denoiser import Denoiser  # noqa: E402
from diffusion_priors.diffusion.image_random import ImageRandom, image_generator  # noqa: E402
from diffusion_priors.evaluation.metrics.lpips import LPIPS  # noqa: E402
from diffusion_priors.evaluation.metrics.per_image import Metrics  # noqa: E402
from diffusion_priors.evaluation.restoration.images import CleanImages  # noqa: E402
from diffusion_priors.images.fit import Crop  # noqa: E402
from diffusion_priors.operators.measurement import Measurement  # noqa: E402
from diffusion_priors.runs.files import write_whole  # noqa: E402
from diffusion_priors.solvers.base import Problem  # noqa: E402


class Bench:
    """The images, the prior and the scores of a run. `rows` counts the images that the network has seen since it was set to 0."""

    def __init__(self, tuning: Path, images: Path, count: int, trunk: str | None) -> None:
        prior = faces64()
        prior.network.to(memory_format=torch.channels_last).register_forward_hook(self._count)
        self.schedule, self.denoiser, self.rows = prior.image_schedule, Denoiser(prior), 0
        self.tuning, self.images = (CleanImages(str(folder), prior.channels, prior.size, Crop()) for folder in (tuning, images))
        self.tuning.only(range(0, len(self.tuning), max(len(self.tuning) // BATCH, 1))[:BATCH])
        self.images.only(range(min(count, len(self.images))))
        self.metrics = Metrics(LPIPS(trunk=trunk))
        self.metrics.prepare()
        print(self.metrics.footnote, flush=True)

    def _count(self, network: object, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.rows += len(output)

    def run(self, job: Job) -> dict:
        """Restore the images of `job` and score them."""
        source = self.tuning if job.stage == "tune" else self.images
        numbers = range(job.first, min(job.first + BATCH, len(source)))
        ids, truth = [source.ids[i] for i in numbers], torch.stack([source.given(i) for i in numbers])
        task = configured(*TASKS[job.cell.task])
        generators = [image_generator(0, name, "measurement") for name in ids]
        measurement = Measurement.of(task.operator.draw(truth, generators), task.noise_model, truth, generators)
        self.denoiser.reset()
        self.rows, started = 0, perf_counter()
        x0 = (self._ours if job.cell.side == "ours" else self._theirs)(job, measurement, ids)
        seconds = (perf_counter() - started) / len(ids)
        spent = {"forwards": self.rows / len(ids), "vjps": self.denoiser.vjps, "seconds": seconds}
        return asdict(job) | {"ids": ids} | self.metrics(x0, truth) | spent

    def _ours(self, job: Job, measurement: Measurement, ids: Sequence[str]) -> Tensor:
        method = configured(*(OURS | EXTRAS)[job.cell.method][job.setting])
        rng = ImageRandom([image_generator(0, name, 0, "sampling") for name in ids])
        problem = Problem(self.denoiser, measurement, method.sampler, rng, torch.zeros(measurement.operator.image_shape))
        return method.solver.solve(problem, method.solver.plan(method.grid, self.schedule)).x0

    def _theirs(self, job: Job, measurement: Measurement, ids: Sequence[str]) -> Tensor:
        from deepinverse import Peer

        peer = Peer.of(self.denoiser, self.schedule, measurement, seed=1 + job.first)
        with torch.no_grad():
            return 2.0 * THEIRS[job.cell.method][job.setting]()(peer).float() - 1.0


def work(output: Path, todo: Callable[[], Iterable[Job | None]], run: Callable[[Job], dict]) -> None:
    """Do all jobs that no other process does, and wait for those that others do."""
    while left := [job for job in todo() if job is None or not job.path(output).exists()]:
        if not any(job is not None and done(job.path(output), job, run) for job in left):
            sleep(5.0)


def done(path: Path, job: Job, run: Callable[[Job], dict]) -> bool:
    """Do `job` and write its result to `path`; False where another process is at it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path.with_suffix(".lock"), timeout=0):
            if not path.exists():
                result = run(job)
                write_whole(path, lambda stream: stream.write(json.dumps(result).encode()))
                print(path.stem, f"{mean(result['psnr']):.2f} {mean(result['lpips']):.4f} {result['seconds']:.1f}s", flush=True)
    except Timeout:
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--tuning", type=Path, help="folder of images to choose the settings on")
    parser.add_argument("--images", type=Path, help="folder of images to compare on")
    parser.add_argument("--count", type=int, default=24, help="images of --images, the first by name (default 24)")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--methods", nargs="+", choices=[*THEIRS, *EXTRAS], default=[*THEIRS, *EXTRAS])
    parser.add_argument("--trunk", help="LPIPS trunk weights (AlexNet)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--report", action="store_true", help="print the tables and write them to the output folder")
    chosen = parser.parse_args()
    if chosen.report:
        from peers_report import report

        print(report(chosen.output))
        return
    torch.set_num_threads(chosen.threads)
    bench = Bench(chosen.tuning, chosen.images, chosen.count, chosen.trunk)
    todo = partial(jobs, chosen.output, len(bench.images), chosen.tasks, chosen.methods)
    work(chosen.output, todo, bench.run)


if __name__ == "__main__":
    main()
