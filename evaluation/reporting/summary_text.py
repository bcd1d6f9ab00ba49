"""A run's summary as text for the terminal."""

from __future__ import annotations

from pathlib import Path

from tabulate import tabulate

from diffusion_priors.evaluation.reporting.format import absent, counted, full_estimate, heading, number, plus_minus, spec_of
from diffusion_priors.evaluation.scores import SINGLE, STATISTICS
from diffusion_priors.evaluation.statistics import Estimate
from diffusion_priors.evaluation.summary import Cost, EstimateEntry, Summary
from diffusion_priors.runs.layout import RunLayout


def outcome(summary: Summary, root: Path) -> str:
    """The table, and where the results are."""
    layout = RunLayout(root)
    places = {"images": layout.images, "figure": layout.figure, "report": layout.report}
    return "\n".join([table(summary), "", *(f"{name + ':':9} {path}" for name, path in places.items())])


def table(summary: Summary) -> str:
    """Mean ± standard error and the 95 % interval of each metric; below it the sets, the calibration and the cost."""
    metrics, footnote = summary["metrics"], summary.get("footnote")
    rows = []
    for statistic in STATISTICS:
        values = summary["statistics"].get(statistic.key) or {}
        if statistic is SINGLE or any(values.get(name) for name in metrics):
            cells = [cell(values.get(name), name, footnote) for name in metrics]
            rows.append([statistic.named(summary["num_samples"]), *cells])
    blocks = [tabulate(rows, headers=["", *map(heading, metrics)], tablefmt="simple", disable_numparse=True)]
    if summary.get("distribution"):
        blocks.append(" · ".join(f"{name.upper()} {number(value, '.4g')}" for name, value in summary["distribution"].items()))
    if summary.get("calibration"):
        blocks.append("\n".join(calibration_lines(summary["calibration"])))
    note = f"\n* {footnote}" if footnote else ""
    blocks.append(f"{' · '.join(facts(summary))}\nmean ± standard error over images, [95 % interval]{note}")
    return "\n\n".join(blocks)


def facts(summary: Summary) -> list[str]:
    """What a restoration took and left over, as far as it is known."""
    cost: Cost = summary["cost"]
    residual = summary["statistics"][SINGLE.key].get("residual")
    known = [counted(summary["images"], "image")]
    if cost["nfe_forward"] is not None:
        known.append(f"NFE {number(cost['nfe_forward'], '.0f')} forward + {number(cost['nfe_vjp'], '.0f')} vjp")
    if cost["seconds"]:
        known.append(f"{number(cost['seconds']['mean'])} s per restoration")
    if residual:
        known.append(f"residual {number(residual['mean'], '.4f')}")
    if summary["sigma_y"] is not None:
        known.append(f"sigma_y {number(summary['sigma_y'], '.3g')}")
    if cost["peak_memory_mib"]:
        known.append(f"peak memory {number(cost['peak_memory_mib'], '.0f')} MiB")
    return known


def cell(found: EstimateEntry | None, name: str, footnote: str | None) -> str:
    """26.62 ± 0.31 [25.98, 27.25]; a dash for None, with a mark if the footnote says why."""
    return absent(name, footnote) if found is None else full_estimate(Estimate.from_dict(found), spec_of(name))


def calibration_lines(found: dict) -> list[str]:
    """The calibration in two lines."""
    if not found["images"]:
        return ["calibration: no image has a truth and all its samples"]
    coverage = {level: Estimate.from_dict(one) for level, one in found["coverage"].items()}
    shown = [f"{number(float(level), '.0%')} intervals cover {plus_minus(one, '.1%')}" for level, one in coverage.items()]
    last = found["groups"][-1]
    return [
        f"calibration of {found['samples']} samples, {counted(found['images'], 'image')}: {'; '.join(shown)}",
        (
            f"predicted deviation and error: correlation {plus_minus(Estimate.from_dict(found['correlation']), '.2f')}; in the pixels with "
            f"the largest deviation, predicted {number(last['predicted'], '.3f')}, error {number(last['error'], '.3f')}, on [0, 1]"
        ),
    ]
