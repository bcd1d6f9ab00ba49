"""One image from a sweep over operators and solvers: python examples/gallery.py SWEEP_FOLDER IMAGE.

A row per operator: the truth, the measurement, and what each solver made of it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from diffusion_priors.evaluation.reporting.figure import draw_figure
from diffusion_priors.runs.files import write_whole


def main(sweep: Path, target: Path) -> None:
    rows: dict[str, list] = {}
    for job in sorted((p for p in sweep.iterdir() if p.name.isdigit()), key=lambda p: int(p.name)):
        chosen = dict(override.split("=", 1) for override in yaml.safe_load((job / "config.yaml").read_text())["overrides"])
        record = json.loads((job / "records.jsonl").read_text().splitlines()[0])
        folder = job / "images" / record["id"]
        row = rows.setdefault(chosen["operator"], [])
        if not row:
            row.append(("truth", Image.open(folder / "truth.png")))
            label = f"{chosen['operator']}\n{record['psnr_measurement']:.2f} dB"
            row.append((label, Image.open(folder / "measurement.png")))
        row.append((f"{chosen['solver']}\n{record['psnr']:.2f} dB", Image.open(folder / "restoration-0.png")))
    figure = draw_figure(list(rows.values()), "One face, five operators, sigma_y 0.05 in [-1, 1], 250 steps, prior faces64")
    write_whole(target, lambda stream: figure.save(stream, "PNG"))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
