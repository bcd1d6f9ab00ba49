"""The end of a sweep over exact problems: its table as text, CSV and Markdown, its plots, and a page with both."""

from __future__ import annotations

from pathlib import Path

from diffusion_priors.evaluation.exact.overview import overview
from diffusion_priors.evaluation.exact.plots import draw
from diffusion_priors.evaluation.exact.table import csv_text, headings, markdown, read, rows, text
from diffusion_priors.evaluation.reporting.charts import inline_svg, png
from diffusion_priors.evaluation.reporting.html import render
from diffusion_priors.runs.files import write_whole


def write_report(root: Path) -> str:
    """Write table.csv, table.md, plots/ and report.html of the runs under `root`; return the text for the terminal."""
    runs = read(root)
    figures = ({"overview": overview(runs)} if several(runs) else {}) | draw(runs)
    plots = {name: png(figure) for name, figure in figures.items()}
    files = {"table.csv": csv_text(runs).encode(), "table.md": markdown(runs).encode()}
    files |= {f"plots/{name}.png": content for name, content in plots.items()}
    for name, content in files.items():
        write_whole(root / name, lambda stream, content=content: stream.write(content))
    charts = {name: inline_svg(figure, figure.get_suptitle()) for name, figure in figures.items()}
    page = render("exact_posterior.html.j2", root / "report.html", {"headings": headings(runs), "rows": rows(runs), "charts": charts})
    return f"{text(runs)}\n\nreport: {page}"


def several(runs: list[dict]) -> bool:
    """Whether the runs compare at least two solvers."""
    return len({run["solver"] for run in runs}) > 1
