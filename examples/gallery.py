"""One image from a sweep over operators and solvers: python examples/gallery.py SWEEP_FOLDER IMAGE.

A row per operator: the ground truth, the measurement if it is an image, and the restoration of each solver.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from diffusion_priors.evaluation.reporting.figure import Tile, draw_figure
from diffusion_priors.evaluation.reporting.finished_run import FinishedRun
from diffusion_priors.evaluation.reporting.image_records import ImageRecords
from diffusion_priors.evaluation.sweeps.jobs import read_jobs
from diffusion_priors.runs.files import write_whole
from diffusion_priors.runs.layout import MEASUREMENT, TRUTH, RunLayout, restoration
from diffusion_priors.runs.reading.png import read_png


def main(sweep: Path, target: Path) -> None:
    rows: dict[str, list[Tile]] = {}
    for job in sorted((job for job in read_jobs(sweep) if job.summary), key=lambda job: job.folder.name.zfill(8)):
        image = next(iter(job.images.values()))
        row = rows.setdefault(job.choices["operator"], [])
        if not row:
            row += inputs(job, image)
        row.append(tile(job, image, restoration(0), job.choices["solver"], "psnr"))
    figure = draw_figure(list(rows.values()), "One face, five operators, sigma_y 0.05 in [-1, 1], 250 steps, prior faces64")
    write_whole(target, lambda stream: figure.save(stream, "PNG"))


def inputs(job: FinishedRun, image: ImageRecords) -> list[Tile]:
    tiles = [tile(job, image, TRUTH, "ground truth", None)]
    if RunLayout(job.folder).image(image.id, MEASUREMENT).is_file():
        tiles.append(tile(job, image, MEASUREMENT, job.choices["operator"], "psnr_measurement"))
    return tiles


def tile(job: FinishedRun, image: ImageRecords, kind: str, label: str, score: str | None) -> Tile:
    psnr = image.records[0][score] if score else None
    return label if psnr is None else f"{label}\n{psnr:.2f} dB", read_png(RunLayout(job.folder).image(image.id, kind))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
