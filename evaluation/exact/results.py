"""The folder of one truth run: exact_posterior.json, config.yaml and what its images are drawn from."""

from __future__ import annotations

import json
from math import isfinite
from pathlib import Path

import numpy as np

from diffusion_priors.evaluation.exact.experiment import ExactExperiment, Outcome
from diffusion_priors.runs.config import CONFIG, differences, refuse
from diffusion_priors.runs.files import write_whole

EXACT_POSTERIOR, CLOUDS = "exact_posterior.json", "clouds.npz"
SHOWN = 400
"""Most points of a cloud that are kept for its image."""

IGNORED = ("output_dir", "overwrite", "trainer", "logger", "callbacks", "metrics", "data", "objective", "table", "num_samples")
"""Keys of the configuration that change no figure."""


def settings(config: dict) -> dict:
    """What the figures depend on; what `tuned` gave the solver stands in the solver's own settings."""
    kept = {key: value for key, value in config.items() if key not in IGNORED}
    return kept | {"exact_problem": {key: value for key, value in kept["exact_problem"].items() if key != "tuned"}}


def find(folder: Path, config: dict, overwrite: bool) -> dict | None:
    """What a run with these settings left in `folder`; None where there is none. Raises ValueError for a run with others."""
    path = folder / EXACT_POSTERIOR
    if overwrite or not path.is_file():
        return None
    refuse(folder, differences(folder / CONFIG, config, (*IGNORED, "exact_problem.tuned")))
    return json.loads(path.read_text(encoding="utf-8"))


def write(folder: Path, outcome: Outcome, solver: str, config: dict, text: str) -> dict:
    """Write the folder of a finished run; → what exact_posterior.json holds. `text` is what config.yaml will hold."""
    truth, cost = outcome.truth, outcome.cost
    found = {
        "problem": truth.exact_problem.name,
        "solver": solver,
        "tuned": list(truth.exact_problem.tuned.get(solver, {})),
        "steps": len(truth.levels) - 1,
        "figures": finite(outcome.figures),
        "floor": finite(outcome.floor),
        "histograms": outcome.histograms(outcome.solved),
        "seconds": cost.seconds,
        "runs": len(outcome.solved.rows),
        "failed": cost.failed,
        "nfe_forward": cost.nfe_forward,
        "nfe_vjp": cost.nfe_vjp,
        "settings": settings(config),
    }
    write_whole(folder / CLOUDS, lambda stream: np.savez_compressed(stream, **clouds(outcome)))
    write_whole(folder / CONFIG, lambda stream: stream.write(text.encode()))
    write_whole(
        folder / EXACT_POSTERIOR, lambda stream: stream.write(json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False).encode())
    )
    return found


def finite(found: dict[str, float | None]) -> dict[str, float | None]:
    """JSON knows no infinity."""
    return {key: value if value is not None and isfinite(value) else None for key, value in found.items()}


def clouds(outcome: Outcome) -> dict[str, np.ndarray]:
    """The first measurement's truth, y, samples and exact samples, or their mean and deviation where they are images."""
    truth: ExactExperiment = outcome.truth
    reference, solved = outcome.references[0], outcome.solved.of(0)
    shape = truth.law.shape
    kept = {"shape": np.array(shape), "truth": truth.truth[0].flatten().numpy()}
    if min(shape[1:]) == 1:
        axes = reference.axes[:, :2] if len(reference.axes) > 2 else np.eye(len(reference.axes))
        return kept | {"samples": solved[:SHOWN] @ axes, "exact": reference.samples[:SHOWN] @ axes}
    exact = reference.posterior
    image = truth.operator.initial_image(truth.measurement.y[:1])[0].flatten().numpy()
    moments = {"mean": exact.mean, "std": np.sqrt(np.diag(exact.covariance))}
    own = {"solved_mean": solved.mean(0), "solved_std": solved.std(0, ddof=1)} if len(solved) > 1 else {}
    return {key: value.astype(np.float32) for key, value in (kept | {"y": image, "sample": solved[:1]} | moments | own).items()}
