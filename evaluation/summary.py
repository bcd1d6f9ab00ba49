"""What a run's records say: estimates over pictures, each labelled with what it is of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from statistics import fmean

from tabulate import tabulate

from evaluation import calibration
from evaluation.output import FORMS
from evaluation.statistics import Estimate, estimate

LABELS = {
    "measurement": "measurement",
    "single": "restoration",
    "posterior_mean": "posterior mean of {n} samples",
    "best_of_n": "best of {n} samples, each metric on its own",
}
"""What the figures are of; with more samples than one the second is of a single one, averaged over them."""


def summarise(title: str, records: Sequence[dict], posterior: Sequence[dict], metrics: Sequence[str], num_samples: int) -> dict:
    """The content of summary.json. Pictures are the units: a picture's samples are averaged before anything else."""
    by_id: dict[str, list[dict]] = {}
    for record in records:
        by_id.setdefault(record["id"], []).append(record)
    groups = list(by_id.values())
    failed = [record for record in records if record["error"] is not None]
    hashes = sorted(f"{name} {own[0]['measurement_hash']}" for name, own in by_id.items() if own[0]["measurement_hash"])
    statistics = {
        "measurement": {name: over(groups, lambda own, name=name: own[0][f"{name}_measurement"]) for name in metrics},
        "single": {name: over(groups, lambda own, name=name: mean(own, name)) for name in (*metrics, "residual")},
    }
    if num_samples > 1:
        statistics["posterior_mean"] = {name: plain(estimate([one[name] for one in posterior])) for name in metrics}
        statistics["best_of_n"] = {name: over(groups, lambda own, name=name: best(own, name)) for name in metrics}
    return {
        "title": title,
        "complete": True,
        "pictures": len(groups),
        "records": len(records),
        "failed": len(failed),
        "first_failure": failed[0]["id"] + ": " + failed[0]["error"] if failed else None,
        "num_samples": num_samples,
        "metrics": list(metrics),
        "statistics": statistics,
        "cost": {
            "nfe_forward": mean(records, "nfe_forward"),
            "nfe_vjp": mean(records, "nfe_vjp"),
            "seconds": over(groups, lambda own: mean(own, "seconds")),
            "peak_memory_mib": max((r["peak_memory_mib"] for r in records if r["peak_memory_mib"] is not None), default=None),
        },
        "sigma_y": mean(records, "sigma_y"),
        "measurements": blake2b("\n".join(hashes).encode(), digest_size=8).hexdigest() if hashes else None,
    }


def over(groups: Sequence[list[dict]], figure: Callable[[list[dict]], float | None]) -> dict | None:
    """The estimate of a figure of each picture's records."""
    return plain(estimate([figure(own) for own in groups]))


def plain(found: Estimate | None) -> dict | None:
    return None if found is None else found.plain()


def mean(records: Sequence[dict], name: str) -> float | None:
    values = [record[name] for record in records if record[name] is not None]
    return fmean(values) if values else None


def best(records: Sequence[dict], name: str) -> float | None:
    """The highest PSNR or SSIM, the lowest LPIPS."""
    values = [record[name] for record in records if record[name] is not None]
    return None if not values else min(values) if name.startswith("lpips") else max(values)


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
    facts = [f"{summary['pictures']} pictures"]
    facts += [f"NFE {cost['nfe_forward']:.0f} forward + {cost['nfe_vjp']:.0f} vjp"] if cost["nfe_forward"] is not None else []
    facts += [f"{cost['seconds']['mean']:.2f} s a restoration"] if cost["seconds"] else []
    facts += [f"residual {residual['mean']:.4f}"] if residual else []
    facts += [f"sigma_y {summary['sigma_y']:.3g}"] if summary["sigma_y"] is not None else []
    facts += [f"peak memory {cost['peak_memory_mib']:.0f} MiB"] if cost["peak_memory_mib"] else []
    if summary.get("distribution"):
        drawn += "\n\n" + " · ".join(f"{name.upper()} {value:.4g}" for name, value in summary["distribution"].items())
    if summary.get("calibration"):
        drawn += "\n\n" + "\n".join(calibration.lines(summary["calibration"]))
    tail = f"\n* {footnote}" if footnote else ""
    return f"{drawn}\n\n{' · '.join(facts)}\nmean ± standard error over pictures, [95 % interval]{tail}"


def outcome(summary: dict, root: Path) -> str:
    """The table, and where everything is."""
    places = (("pictures", "images"), ("figure", "figure.png"), ("report", "report.html"))
    return "\n".join([table(summary), "", *(f"{name + ':':9} {root / file}" for name, file in places)])


def cell(found: dict | None, metric: str, footnote: str | None) -> str:
    """26.62 ± 0.31 [25.98, 27.25]."""
    if found is None:
        return "– *" if footnote and metric.startswith("lpips") else "–"
    form = FORMS[metric][1]
    if found["se"] is None:
        return format(found["mean"], form)
    return f"{found['mean']:{form}} ± {found['se']:{form}} [{found['low']:{form}}, {found['high']:{form}}]"
