"""The keys at the top of each script's yaml that are not config groups, with their types and defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from diffusion_priors.runs.values import Count, Seed, Text, Texts

Samples = Annotated[int, Field(le=100_000)]
"""Samples of one image. The list of more of them would fill the memory before anything is computed."""

Group = Annotated[int, Field(le=1024)]
"""Images that a network sees at once. Groups are filled with copies, so that a large number costs as much as images do."""

Frames = bool | Annotated[int, Field(ge=1, le=1_000_000)]
"""Steps whose x̂0 is kept: all, none, or a number of them."""


@dataclass(frozen=True, kw_only=True)
class SampleSettings:
    """sample.yaml."""

    output_dir: Text
    input: Texts | None = None
    measurement: Texts | None = None
    seed: Seed = 0
    num_samples: Samples = 1
    batch_size: Count = 8
    images_per_call: Group | None = None
    trajectory: Frames = False
    objective: str = "psnr"
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """evaluate.yaml."""

    seed: Seed = 0
    num_samples: Samples = 1
    batch_size: Count = 8
    images_per_call: Group | None = None
    trajectory: Frames = False
    objective: str = "psnr"
    samples: Texts | None = None
    truth: Texts | None = None
    use_tuned: bool = True
    compare: Any = None
    table: dict | None = None
    output_dir: Text | None = None
    overwrite: bool = False
    repair: bool = False


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """train.yaml."""

    steps: Count = 10000
    batch_size: Count = 16
    accumulate: Count = 1
    ema: float = 0.999
    clip: float | None = 1.0
    variance_weight: float = 1e-3
    seed: Seed = 0
    checkpoint_every: Count = 500
    keep_checkpoints: Count = 2
    log_every: Count = 50
    max_hours: float | None = None
    output_dir: Text = "outputs/train"
    overwrite: bool = False
