"""A run's summary as text for the terminal."""

from __future__ import annotations

from pathlib import Path

from tabulate import tabulate

from diffusion_priors.evaluation.reporting.format import FORMS

LABELS = {
    "measurement": "measurement",
    "single": "restoration",
    "posterior_mean": "posterior mean of {n} samples",
    "best_of_n": "best of {n} samples, each metric on its own",
}
"""What the figures are of; with more samples than one the second is of a single one, averaged over them."""


def table(summary: dict) -> str:
    """The terminal's table: mean ± standard error and the 95 % interval of each metric, the cost below."""
    metrics, footnote = summary["metrics"], summary.get("footnote")
    rows = []
    for key, found in summary["statistics"].items():
        if any(found[name] for name in metrics) or key == "single":
            name = LABELS[key].format(n=summary["num_samples"])
            name = f"single sample of {summary['num_samples']}" if key == "single" and summary["num_samples"] > 1 else name
            rows.append([name, *(cell(found[metric], metric, footnote) for metric in metrics)])
    drawn = tabulate(rows, headers=["", *(FORMS[name][0] for name in metrics)], tablefmt="simple", disable_numparse=True)
    cost, residual = summary["cost"], summary["statistics"]["single"]["residual"]
    facts = [f"{summary['images']} images"]
    facts += [f"NFE {cost['nfe_forward']:.0f} forward + {cost['nfe_vjp']:.0f} vjp"] if cost["nfe_forward"] is not None else []
    facts += [f"{cost['seconds']['mean']:.2f} s a restoration"] if cost["seconds"] else []
    facts += [f"residual {residual['mean']:.4f}"] if residual else []
    facts += [f"sigma_y {summary['sigma_y']:.3g}"] if summary["sigma_y"] is not None else []
    facts += [f"peak memory {cost['peak_memory_mib']:.0f} MiB"] if cost["peak_memory_mib"] else []
    if summary.get("distribution"):
        drawn += "\n\n" + " · ".join(f"{name.upper()} {value:.4g}" for name, value in summary["distribution"].items())
    if summary.get("calibration"):
        drawn += "\n\n" + "\n".join(calibration_lines(summary["calibration"]))
    tail = f"\n* {footnote}" if footnote else ""
    return f"{drawn}\n\n{' · '.join(facts)}\nmean ± standard error over images, [95 % interval]{tail}"


def outcome(summary: dict, root: Path) -> str:
    """The table, and where everything is."""
    places = (("images", "images"), ("figure", "figure.png"), ("report", "report.html"))
    return "\n".join([table(summary), "", *(f"{name + ':':9} {root / file}" for name, file in places)])


def cell(found: dict | None, metric: str, footnote: str | None) -> str:
    """26.62 ± 0.31 [25.98, 27.25]."""
    if found is None:
        return "– *" if footnote and metric.startswith("lpips") else "–"
    form = FORMS[metric][1]
    if found["se"] is None:
        return format(found["mean"], form)
    return f"{found['mean']:{form}} ± {found['se']:{form}} [{found['low']:{form}}, {found['high']:{form}}]"


def calibration_lines(found: dict) -> list[str]:
    """What the terminal tells of it."""
    if not found["images"]:
        return ["calibration: no image has a truth and all its samples"]
    shown = [f"{float(level):.0%} intervals cover {spread(one, '.1%')}" for level, one in found["coverage"].items()]
    last = found["groups"][-1]
    return [
        f"calibration of {found['samples']} samples, {found['images']} images: {'; '.join(shown)}",
        f"predicted deviation against error: correlation {spread(found['correlation'], '.2f')}; in the pixels that spread most, "
        f"predicted {last['predicted']:.3f}, error {last['error']:.3f} of [0, 1]",
    ]


def spread(found: dict | None, form: str) -> str:
    if found is None:
        return "–"
    return f"{found['mean']:{form}}" + (f" ± {found['se']:{form}}" if found["se"] is not None else "")
