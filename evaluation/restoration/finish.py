"""The end of a run: what all records together say, as numbers, charts and a page."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path

from diffusion_priors.evaluation.metrics.per_image import Metrics
from diffusion_priors.evaluation.metrics.posterior_mean import posterior_record
from diffusion_priors.evaluation.reporting.figure import write_figure
from diffusion_priors.evaluation.reporting.reliability import write_reliability
from diffusion_priors.evaluation.reporting.run_page import write_report
from diffusion_priors.evaluation.restoration.folder import RestorationFolder
from diffusion_priors.evaluation.summary import summarise
from diffusion_priors.runs.files import append_line
from diffusion_priors.runs.layout import TRUTH, RunLayout, restoration
from diffusion_priors.runs.printable import without_home
from diffusion_priors.runs.reading.record_line import PosteriorLine
from diffusion_priors.runs.reading.records import records_by_image, scan_lines

FIGURE_IMAGES = 8
"""Images in figure.png."""

OnSummary = Callable[[dict, list[dict]], None]
"""Called with the summary and the records before they are written."""


def finalize_run(
    folder: RestorationFolder,
    title: str,
    metrics: Metrics,
    num_samples: int,
    keys: Collection[tuple[str, int]],
    complete: bool = True,
    on_summary: OnSummary | None = None,
) -> dict:
    """Merge the records and write posterior.jsonl, figure.png, report.html and, last, summary.json → the summary.

    A run is `complete` where each of its items, (id, sample) in `keys`, is on record with its images. Each step is whole or
    repeated, so a run that is killed here resumes here. Raises ValueError where a complete run lacks something.
    """
    title = without_home(title)
    records = folder.merge()
    folder.check_kept(records, keys if complete else ())
    posterior = posterior_records(folder.root, records, metrics) if num_samples > 1 else []
    summary = summarise(title, records, posterior, metrics.names, num_samples, complete)
    summary["footnote"] = metrics.footnote or None
    if metrics.distribution is not None:
        summary["distribution"] = metrics.distribution(*_image_files(folder.layout, records))
    if metrics.calibration is not None:
        summary["calibration"] = metrics.calibration(folder.root, records)
        write_reliability(folder.root, summary["calibration"])
    first = sorted({record["id"] for record in records})[:FIGURE_IMAGES]
    shown = [record for record in records if record["id"] in first and record["sample"] < 8 * FIGURE_IMAGES]
    write_figure(folder.root, shown, title)
    if on_summary is not None:
        on_summary(summary, records)
    write_report(folder.root, records=records, summary=summary)
    folder.finish(summary)
    return summary


def posterior_records(root: Path, records: list[dict], metrics: Metrics) -> list[dict]:
    """posterior.jsonl, with the images added that are not in it yet. A file with a damaged line is made again."""
    path = RunLayout(root).posterior
    images = records_by_image(records)
    lines = list(scan_lines(path, PosteriorLine, metrics.names)) if path.is_file() else []
    found = {line.value["id"]: line.value for line in lines if line.fault is None}
    if any(line.fault is not None for line in lines):
        found = {}
        path.unlink()
    metrics.to("cpu")
    for name, own in images.items():
        if name not in found:
            found[name] = posterior_record(root, own, metrics)
            append_line(path, json.dumps(found[name], allow_nan=False))
    return [found[name] for name in sorted(images)]


def _image_files(layout: RunLayout, records: list[dict]) -> tuple[list[Path], list[Path]]:
    """The truths, each once, and the first restoration of each image."""
    kept = [record["id"] for record in records if record["sample"] == 0 and record["error"] is None]
    return [layout.image(name, TRUTH) for name in kept], [layout.image(name, restoration(0)) for name in kept]
