"""Numbers as text: everything that a table, a page or the terminal prints of a value is formatted here."""

from __future__ import annotations

from diffusion_priors.evaluation.scores import explains, metric_of
from diffusion_priors.evaluation.statistics import Estimate

ABSENT = "–"
"""Stands for a value that does not exist."""


def number(value: float | None, spec: str = ".2f") -> str:
    """`value` in the format `spec`, with a true minus sign and never −0; a dash for None."""
    if value is None:
        return ABSENT
    sign, rest = (spec[0], spec[1:]) if spec[0] in "+- " else ("", spec)
    return format(float(value), f"{sign}z{rest}").replace("-", "−")


def counted(count: int, noun: str) -> str:
    """1 image, 2 images, 10,000 images."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def absent(name: str, footnote: str | None) -> str:
    """What a table shows if the metric `name` has no value: a dash, with a mark if the footnote of the summary says why."""
    return f"{ABSENT} *" if explains(footnote, name) else ABSENT


def plus_minus(found: Estimate | None, spec: str) -> str:
    """26.62 ± 0.31: mean ± standard error."""
    if found is None or found.se is None:
        return number(found and found.mean, spec)
    return f"{number(found.mean, spec)} ± {number(found.se, spec)}"


def interval(found: Estimate | None, spec: str) -> str:
    """[25.98, 27.25]; empty if there is none."""
    return "" if found is None or found.low is None else f"[{number(found.low, spec)}, {number(found.high, spec)}]"


def full_estimate(found: Estimate | None, spec: str) -> str:
    """26.62 ± 0.31 [25.98, 27.25]."""
    return f"{plus_minus(found, spec)} {interval(found, spec)}".rstrip()


def signed_difference(found: Estimate | None, spec: str) -> str:
    """−0.50 [−0.81, −0.19], +0.02 [−0.10, +0.14]; empty for None."""
    return "" if found is None else f"{number(found.mean, f'+{spec}')} {interval(found, f'+{spec}')}".rstrip()


def forward_and_vjp(forward: float | None, vjp: float | None) -> str:
    """250 + 250: network evaluations and vector-Jacobian products of a sample."""
    return f"{number(forward, '.0f')} + {number(vjp, '.0f')}"


def p_number(p: float | None) -> str:
    """0.00041, or < 0.0001; a dash for None."""
    return ABSENT if p is None else "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def p_value(p: float) -> str:
    """p = 0.00041, or p < 0.0001."""
    return f"p {p_number(p)}" if p < 1e-4 else f"p = {p_number(p)}"


def thousands(count: int) -> str:
    """10,000."""
    return f"{count:,}"


def score(name: str, value: float) -> str:
    """PSNR 21.30 dB."""
    metric = metric_of(name)
    return f"{metric.label} {number(value, metric.spec)} {metric.unit}".rstrip()


def heading(name: str) -> str:
    """psnr → PSNR (dB) ↑."""
    return metric_of(name).heading


def spec_of(name: str) -> str:
    """psnr → .2f."""
    return metric_of(name).spec
