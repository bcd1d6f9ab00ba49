"""The images of a finished run: what is on record of each, which ones a page of limited size shows, and their PNGs."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from PIL import Image

from diffusion_priors.evaluation.reporting.format import form
from diffusion_priors.evaluation.reporting.html import number
from diffusion_priors.runs.records import read_lines, read_records

SAMPLES, EMBEDDED_BYTES = 8, 32 * 2**20
"""Most samples shown of one image, and most bytes of images in a page, so that it opens."""

PIXELATED = 96
"""Images up to this many pixels wide and high are enlarged pixel by pixel, larger ones smoothly."""


@dataclass(frozen=True)
class Shot:
    """One PNG of an image: `kind` is the same in all images, `name` and `scores` are printed, `source` is a data URI."""

    kind: str
    name: str
    scores: tuple[str, ...]
    source: str
    size: tuple[int, int]

    @property
    def pixelated(self) -> bool:
        return max(self.size) <= PIXELATED


@dataclass
class ImageResults:
    """What is on record of one image: a record per sample, and its line of posterior.jsonl, empty where there is none."""

    id: str
    number: int
    records: list[dict] = field(default_factory=list)
    posterior: dict = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    shots: list[Shot] = field(default_factory=list)

    def mean(self, key: str) -> float | None:
        """Over the samples that have a value."""
        values = [record[key] for record in self.records if record.get(key) is not None]
        return fmean(values) if values else None

    @property
    def restored(self) -> list[dict]:
        return [record for record in self.records if record["error"] is None]

    @property
    def failed(self) -> list[dict]:
        return [record for record in self.records if record["error"] is not None]

    @property
    def left_out(self) -> int:
        """Restorations that are not among the shots."""
        return len(self.restored) - sum(shot.kind.startswith("restoration") for shot in self.shots)


def read_images(root: Path, records: Sequence[dict] | None = None) -> list[Image]:
    """The images of the run under `root`; `records` spares reading them again."""
    path = root / "posterior.jsonl"
    posterior = {line["id"]: line for line in read_lines(path)} if path.is_file() else {}
    return gather(read_records(root) if records is None else records, posterior)


def gather(records: Sequence[dict], posterior: Mapping[str, dict]) -> list[Image]:
    """The images in the order of their records, numbered from 1; `posterior` is by image id."""
    found: dict[str, Image] = {}
    for record in records:
        name = record["id"]
        if name not in found:
            found[name] = ImageResults(name, len(found) + 1, posterior=posterior.get(name, {}))
        found[name].records.append(record)
    return list(found.values())


def ranked(images: Sequence[Image]) -> list[Image]:
    """Those that have a PSNR, worst first."""
    scored = [(psnr, image.number, image) for image in images if (psnr := image.mean("psnr")) is not None]
    return [image for _, _, image in sorted(scored, key=lambda entry: entry[:2])]


def tag_extremes(images: Sequence[Image]) -> None:
    """Say of the worst, the median and the best image by PSNR that they are."""
    order = ranked(images)
    if len(order) >= 3:
        for place, name in ((0, "worst PSNR"), (len(order) // 2, "median PSNR"), (-1, "best PSNR")):
            order[place].tags.append(name)


def telling(images: list[Image], limit: int) -> list[Image]:
    """At most `limit` images, the most telling first: a ninth each of the worst, median and best by PSNR, then the first ones."""
    if len(images) <= limit:
        return images
    order, share = ranked(images), max(1, limit // 9)
    middle = max(0, (len(order) - share + 1) // 2)
    turns = zip(order[:share], order[middle : middle + share], order[::-1][:share], strict=False)
    extremes = [image for turn in turns for image in turn]  # in turn, so that a small limit keeps each kind
    return list({image.number: image for image in (*extremes, *images)}.values())[:limit]


def load_shots(root: Path, images: Sequence[Image], metrics: Sequence[str], samples_alone: int) -> list[Image]:
    """Give images their shots until `EMBEDDED_BYTES` are reached; those that have any, in the order of the records.

    `samples_alone` bounds the samples of an image that has nothing to be compared with, `SAMPLES` those of others.
    """
    kept, size = [], 0
    for image in images:
        shots = shots_of(root / "images" / image.id, image, metrics, samples_alone)
        size += sum(len(shot.source) * 3 // 4 for shot in shots)  # base64 takes four bytes for three
        if kept and size > EMBEDDED_BYTES:
            break
        if shots:
            image.shots = shots
            kept.append(image)
    return sorted(kept, key=lambda image: image.number)


def shots_of(folder: Path, image: Image, metrics: Sequence[str], samples_alone: int) -> list[Shot]:
    """The PNGs in `folder`, from what was given, over what was made, to the truth."""
    alone = not any((folder / f"{kind}.png").is_file() for kind in ("measurement", "truth"))
    several = len(image.records) > 1
    spread = image.posterior.get("deviation")
    named = [("measurement", "Measurement", scores(image.records[0], metrics, "_measurement")), ("noisy", "Noisy", ())]
    for record in image.restored[: samples_alone if alone else SAMPLES]:
        name = f"Sample {record['sample']}" if several else "Sample" if alone else "Restoration"
        named.append((f"restoration-{record['sample']}", name, scores(record, (*metrics, "residual"))))
    named += [("mean", "Mean", scores(image.posterior, metrics)), ("std", "Deviation", () if spread is None else (f"mean {spread:.4f}",))]
    named.append(("truth", "Truth", ()))
    return [shot(path, kind, name, told) for kind, name, told in named if (path := folder / f"{kind}.png").is_file()]


def shot(path: Path, kind: str, name: str, told: tuple[str, ...]) -> Shot:
    with Image.open(path) as image:
        size = image.size
    return Shot(kind, name, told, f"data:image/png;base64,{b64encode(path.read_bytes()).decode()}", size)


def scores(record: dict, metrics: Sequence[str], suffix: str = "") -> tuple[str, ...]:
    """("PSNR 21.30 dB", "SSIM 0.701", …) of the metrics that have a value."""
    values = ((metric, record.get(metric + suffix)) for metric in metrics)
    return tuple(score(metric, value) for metric, value in values if value is not None)


def score(name: str, value: float) -> str:
    if name == "residual":
        return f"residual {number(value, '.4f')}"
    return f"{name.upper().replace('_', ' ')} {number(value, form(name))}{' dB' if name == 'psnr' else ''}"
