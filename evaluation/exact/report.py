"""The end of a truth sweep: its table for terminal, CSV and Markdown, its images, and a page with both."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

from diffusion_priors.evaluation.exact.plots import draw
from diffusion_priors.evaluation.exact.table import HEADINGS, csv_text, markdown, read, rows, text
from diffusion_priors.evaluation.reporting.charts import png
from diffusion_priors.evaluation.reporting.html import render
from diffusion_priors.runs.files import write_whole


def write_report(root: Path) -> str:
    """table.csv, table.md, plots/ and report.html of the jobs under `root`; → what the terminal is told."""
    jobs = read(root)
    drawn = {name: png(figure) for name, figure in draw(jobs).items()}
    files = {"table.csv": csv_text(jobs).encode(), "table.md": markdown(jobs).encode()}
    files |= {f"plots/{name}.png": content for name, content in drawn.items()}
    for name, content in files.items():
        write_whole(root / name, lambda stream, content=content: stream.write(content))
    images = {name: f"data:image/png;base64,{b64encode(content).decode()}" for name, content in drawn.items()}
    page = render("exact_posterior.html.j2", root / "report.html", {"headings": HEADINGS, "rows": rows(jobs), "images": images})
    return f"{text(jobs)}\n\nreport: {page}"
