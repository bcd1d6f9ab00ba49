"""HTML pages: a template that extends `templates/base.html.j2`, and a dictionary of values, become one self-contained file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from diffusion_priors.evaluation.reporting.format import counted, heading, interval, number, plus_minus, spec_of, thousands
from diffusion_priors.runs.files import write_whole


@cache
def page_environment() -> Environment:
    """The environment of all pages. Autoescape is on: names, errors and configurations are printed as text, never as markup.

    Filters: {{ 21.5 | number(".1f") }}, {{ "psnr" | heading }} → PSNR (dB) ↑, {{ "psnr" | spec }} → .2f,
    {{ 10000 | thousands }} → 10,000, {{ 10000 | images }} → 10,000 images,
    {{ estimate | plus_minus(".2f") }} → 26.62 ± 0.31, {{ estimate | interval(".2f") }} → [25.98, 27.25].
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "heading": heading,
        "spec": spec_of,
        "thousands": thousands,
        "images": lambda count: counted(count, "image"),
        "plus_minus": plus_minus,
        "interval": interval,
    }
    return environment


def render(template: str, path: Path, values: Mapping[str, object]) -> Path:
    """Fill `templates/<template>` with `values` and write it to `path`, whole or not at all. Raises UndefinedError for a missing value."""
    text = page_environment().get_template(template).render(values)
    write_whole(path, lambda stream: stream.write(text.encode(errors="replace")))
    return path
