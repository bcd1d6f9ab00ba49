"""The keys at the top of each script's yaml that are not config groups, with their types and defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class SampleSettings:
    """sample.yaml."""

    output_dir: str
    input: str | list[str] | None = None
    measurement: str | list[str] | None = None
    seed: int = 0
    num_samples: int = 1
    batch_size: int = 8
    images_per_call: int | None = None
    objective: str = "psnr"
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """evaluate.yaml."""

    seed: int = 0
    num_samples: int = 1
    batch_size: int = 8
    images_per_call: int | None = None
    objective: str = "psnr"
    samples: str | list[str] | None = None
    truth: str | list[str] | None = None
    use_tuned: bool = True
    compare: Any = None
    table: dict | None = None
    output_dir: str | None = None
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """train.yaml."""

    steps: int = 10000
    batch_size: int = 16
    accumulate: int = 1
    ema: float = 0.999
    clip: float | None = 1.0
    variance_weight: float = 1e-3
    seed: int = 0
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    log_every: int = 50
    max_hours: float | None = None
    output_dir: str = "outputs/train"
    overwrite: bool = False
