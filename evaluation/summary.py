"""What a run's records say: estimates over images, each labelled with what it is of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from statistics import fmean

from diffusion_priors.evaluation.statistics import Estimate, estimate


def summarise(title: str, records: Sequence[dict], posterior: Sequence[dict], metrics: Sequence[str], num_samples: int) -> dict:
    """The content of summary.json. Images are the units: an image's samples are averaged before anything else."""
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
        "images": len(groups),
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
    """The estimate of a figure of each image's records."""
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
