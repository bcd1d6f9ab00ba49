"""The images on a run's page: which ones a page of limited size shows, and their PNGs."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from diffusion_priors.evaluation.reporting.format import number, score
from diffusion_priors.evaluation.reporting.image_records import ImageRecords
from diffusion_priors.runs.layout import DRAWING, FIRST_LOOK, MEAN, MEASUREMENT, NOISY, STD, TRUTH, RunLayout, restoration
from diffusion_priors.runs.reading.png import description, png_or_none

SAMPLES, EMBEDDED_BYTES = 8, 32 * 2**20
"""The most samples shown of one image, and the most bytes of images in a page, so that it opens."""

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
class ImageCard:
    """An image on the page: its `number`, from 1 in the order of the run, its tags and what it shows."""

    number: int
    results: ImageRecords
    tags: list[str] = field(default_factory=list)
    shots: list[Shot] = field(default_factory=list)
    films: list[tuple[int, str]] = field(default_factory=list)
    """(sample, file name) of each animation of x̂0 over the steps."""

    @property
    def id(self) -> str:
        return self.results.id

    @property
    def failed(self) -> list[dict]:
        return self.results.failed

    @property
    def left_out(self) -> int:
        """The number of restorations that are not among the shots."""
        return len(self.results.restored) - sum(shot.kind.startswith("restoration") for shot in self.shots)


def cards_of(images: dict[str, ImageRecords]) -> list[ImageCard]:
    """A card per image. The worst, the median and the best image by PSNR carry a tag that says so."""
    cards = [ImageCard(number, results) for number, results in enumerate(images.values(), 1)]
    order = by_psnr(cards)
    if len(order) >= 3:
        for place, name in ((0, "worst PSNR"), (len(order) // 2, "median PSNR"), (-1, "best PSNR")):
            order[place].tags.append(name)
    return cards


def by_psnr(cards: Sequence[ImageCard]) -> list[ImageCard]:
    """The images that have a PSNR, worst first."""
    scored = [(psnr, card.number, card) for card in cards if (psnr := card.results.mean("psnr")) is not None]
    return [card for _, _, card in sorted(scored, key=lambda entry: entry[:2])]


def representative(cards: list[ImageCard], limit: int) -> list[ImageCard]:
    """At most `limit` images: a ninth of them each the worst, the median and the best by PSNR, then the first ones.

    The images of a smaller limit are among those of a larger one.
    """
    if len(cards) <= limit:
        return cards
    order, share = by_psnr(cards), max(1, limit // 9)
    middle = max(0, (len(order) - share + 1) // 2)
    turns = zip(order[:share], order[middle : middle + share], order[::-1][:share], strict=False)
    extremes = [card for turn in turns for card in turn]  # in turn, so that a small limit keeps one of each
    return list({card.number: card for card in (*extremes, *cards)}.values())[:limit]


def load_shots(root: Path, cards: Sequence[ImageCard], metrics: Sequence[str], samples_alone: int) -> list[ImageCard]:
    """Load the shots of images until `EMBEDDED_BYTES` are reached; → the images that have any, in the order of the run.

    `samples_alone` is the most samples of an image that has neither measurement nor ground truth, `SAMPLES` of others.
    """
    kept, size = [], 0
    for card in cards:
        shots = shots_of(RunLayout(root), card.results, metrics, samples_alone)
        size += sum(len(shot.source) * 3 // 4 for shot in shots)  # base64 takes four bytes for three
        if kept and size > EMBEDDED_BYTES:
            break
        if shots:
            card.shots, card.films = shots, films_of(RunLayout(root), card.results)
            kept.append(card)
    return sorted(kept, key=lambda card: card.number)


def films_of(layout: RunLayout, image: ImageRecords) -> list[tuple[int, str]]:
    """The animations that exist of the samples that the page shows. They are not embedded: each may be as large as the page."""
    paths = [(record["sample"], layout.animation(image.id, record["sample"])) for record in image.restored[:SAMPLES]]
    return [(sample, path.name) for sample, path in paths if path.is_file()]


def shots_of(layout: RunLayout, image: ImageRecords, metrics: Sequence[str], samples_alone: int) -> list[Shot]:
    """The PNGs of an image that exist, from the measurement over the restorations to the ground truth."""
    inputs = (layout.image(image.id, MEASUREMENT), layout.measurement(image.id), layout.image(image.id, TRUTH))
    alone = not any(path.is_file() for path in inputs)
    several = len(image.records) > 1
    named = [(MEASUREMENT, "Measurement", scores(image.records[0], metrics, "_measurement"))]
    named += [(DRAWING, "Measurement", ()), (FIRST_LOOK, "First look", ()), (NOISY, "Noisy", ())]
    for record in image.restored[: samples_alone if alone else SAMPLES]:
        name = f"Sample {record['sample']}" if several else "Sample" if alone else "Restoration"
        named.append((restoration(record["sample"]), name, scores(record, (*metrics, "residual"))))
    deviation = image.posterior.get("deviation")
    named.append((MEAN, "Mean", scores(image.posterior, metrics)))
    named.append((STD, "Deviation", () if deviation is None else (f"mean {number(deviation, '.4f')}",)))
    named.append((TRUTH, "Truth", ()))
    files = [(layout.image(image.id, kind), kind, name, texts) for kind, name, texts in named]
    return [found for path, kind, name, texts in files if (found := shot(path, kind, name, texts)) is not None]


def shot(path: Path, kind: str, name: str, scores: tuple[str, ...]) -> Shot | None:
    """None where there is no whole PNG. What is shown of a measurement describes itself, in place of scores."""
    image = png_or_none(path)
    if image is None:
        return None
    if kind in (DRAWING, FIRST_LOOK):
        scores = tuple(description(image).split("; "))
    return Shot(kind, name, scores, f"data:image/png;base64,{b64encode(path.read_bytes()).decode()}", image.size)


def scores(record: dict, metrics: Sequence[str], suffix: str = "") -> tuple[str, ...]:
    """("PSNR 21.30 dB", "SSIM 0.701", …) of the metrics that have a value."""
    values = ((metric, record.get(metric + suffix)) for metric in metrics)
    return tuple(score(metric, value) for metric, value in values if value is not None)
