"""The folder of one exact comparison: exact_posterior.json, config.yaml and the data of its plots."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, FiniteFloat, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from diffusion_priors.evaluation.exact.experiment import Outcome
from diffusion_priors.runs.config import CONFIG, differences, refuse
from diffusion_priors.runs.files import write_whole
from diffusion_priors.runs.reading.plain import open_regular, read_json

EXACT_POSTERIOR, CLOUDS = "exact_posterior.json", "clouds.npz"
PLOTTED_SAMPLES = 400
"""The largest number of samples kept for a plot."""

WITHOUT_EFFECT = (
    *("output_dir", "overwrite", "repair", "trainer", "logger", "callbacks", "metrics", "data"),
    *("objective", "table", "num_samples", "use_tuned", "trajectory"),
)
"""Keys of the configuration that do not change a result. `use_tuned` acts through the settings of the solver."""


Values = dict[str, FiniteFloat | None]


class Results(TypedDict):
    """The schema of exact_posterior.json: what `write` puts there."""

    problem: str
    solver: str
    tuned: list[str]
    steps: int
    distances: Values
    floor: Values
    histograms: list[list[Annotated[int, Field(ge=0, lt=2**53)]]] | None
    seconds: FiniteFloat
    samples: int
    failed: int
    nfe_forward: FiniteFloat
    nfe_vjp: FiniteFloat
    settings: dict[str, Any]


SCHEMA = TypeAdapter(Results)


def settings(config: dict) -> dict:
    """The part of a configuration that the results depend on."""
    return {key: value for key, value in config.items() if key not in WITHOUT_EFFECT}


def find(folder: Path, config: dict, overwrite: bool) -> dict | None:
    """The results in `folder` of a run with these settings, or None. Raises ValueError if its settings were others, or it is damaged."""
    path = folder / EXACT_POSTERIOR
    if overwrite or not os.path.lexists(path):
        return None
    refuse(folder, differences(folder / CONFIG, config, WITHOUT_EFFECT))
    return read_results(path)


def read_results(path: Path) -> dict:
    """The content of an exact_posterior.json. Raises ValueError, in one line, if it does not fit the schema."""
    try:
        content = read_json(path)
        SCHEMA.validate_python(content, strict=True)
        return content
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}".lstrip(": ")
    except (OSError, ValueError) as error:
        reason = str(error)
    raise ValueError(f"{path} is damaged: {reason}; delete it, and the same command computes it again")


def read_clouds(folder: Path) -> dict[str, np.ndarray]:
    """The data of the plots of one run. Raises ValueError, in one line, for a file that is damaged or holds code."""
    path = folder / CLOUDS
    try:
        with open_regular(path) as stream, np.load(stream, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, AttributeError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        advice = f"delete {folder / EXACT_POSTERIOR}, and the same command computes it again"
        raise ValueError(f"{path} is damaged: {' '.join(str(error).split())[:200]}; {advice}") from error


def write(folder: Path, outcome: Outcome, solver: str, tuned: Sequence[str], config: dict, text: str) -> dict:
    """Write the folder of a finished run and return the content of exact_posterior.json.

    `tuned` names the solver's settings that conf/tuned holds; `text` is the content of config.yaml.
    """
    experiment, cost = outcome.experiment, outcome.cost
    found = {
        "problem": experiment.exact_problem.name,
        "solver": solver,
        "tuned": list(tuned),
        "steps": len(experiment.plan),
        "distances": finite(outcome.distances),
        "floor": finite(outcome.floor),
        "histograms": outcome.histograms(outcome.solved),
        "seconds": cost.seconds,
        "samples": len(outcome.solved.rows),
        "failed": cost.failed,
        "nfe_forward": cost.nfe_forward,
        "nfe_vjp": cost.nfe_vjp,
        "settings": settings(config),
    }
    content = json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False).encode()
    write_whole(folder / CLOUDS, lambda stream: np.savez_compressed(stream, **clouds(outcome)))
    write_whole(folder / CONFIG, lambda stream: stream.write(text.encode()))
    write_whole(folder / EXACT_POSTERIOR, lambda stream: stream.write(content))
    return found


def finite(found: dict[str, float | None]) -> dict[str, float | None]:
    """The values, with None for those that JSON cannot hold."""
    return {key: value if value is not None and isfinite(value) else None for key, value in found.items()}


def clouds(outcome: Outcome) -> dict[str, np.ndarray]:
    """The first measurement's ground truth, samples and exact samples; for images instead y and the means and deviations."""
    experiment, reference, solved = outcome.experiment, outcome.references[0], outcome.solved.of(0)
    shape = experiment.law.shape
    kept = {"shape": np.array(shape), "truth": experiment.truth[0].flatten().numpy()}
    if min(shape[1:]) == 1:
        axes = reference.axes[:, :2] if len(reference.axes) > 2 else np.eye(len(reference.axes))
        return kept | {"samples": solved[:PLOTTED_SAMPLES] @ axes, "exact": reference.samples[:PLOTTED_SAMPLES] @ axes}
    exact = reference.posterior
    measured = experiment.method.operator.initial_image(experiment.measurement.y[:1])
    kept |= {} if measured is None else {"y": measured[0].flatten().numpy()}
    kept |= {"sample": solved[:1], "mean": exact.mean, "std": np.sqrt(np.diag(exact.covariance))}
    if len(solved) > 1:
        kept |= {"solved_mean": solved.mean(0), "solved_std": solved.std(0, ddof=1)}
    return {key: value.astype(np.float32) for key, value in kept.items()}
