"""HTML pages: a template over `templates/base.html.j2` and a dictionary of values become one self-contained file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from diffusion_priors.evaluation.reporting.format import form, heading
from diffusion_priors.runs.files import write_whole

ABSENT = "–"


def number(value: float | None, spec: str = ".2f") -> str:
    """`value` written as `spec` says, with a true minus sign; a dash where there is none."""
    return ABSENT if value is None else format(value, spec).replace("-", "−")


def thousands(count: int) -> str:
    return f"{count:,}"


@cache
def environment() -> Environment:
    """Autoescape is on: whatever a page prints of names, errors or configuration is text, never markup.

    Filters: {{ 21.5 | number(".1f") }}, {{ "psnr" | heading }} → PSNR (dB) ↑, {{ "psnr" | form }} → .2f, {{ 10000 | thousands }} → 10,000.
    """
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"number": number, "heading": heading, "form": form, "thousands": thousands}
    return made


def render(template: str, path: Path, values: Mapping[str, object]) -> Path:
    """Write `templates/<template>` filled with `values` to `path`, whole or not at all. Raises UndefinedError for a value it misses."""
    text = environment().get_template(template).render(values)
    write_whole(path, lambda stream: stream.write(text.encode(errors="replace")))
    return path
