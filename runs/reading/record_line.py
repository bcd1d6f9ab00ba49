"""What a line of records.jsonl and of posterior.jsonl may hold. Whoever reads such a line later need not look again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, ValidationError

from diffusion_priors.runs.ids import check_id
from diffusion_priors.runs.printable import printable

LARGEST = 1e100
"""Values beyond it are no measured ones, and the squares of larger ones are infinite."""


def _id(name: str) -> str:
    check_id(name)
    return name


def _size(value: float) -> float:
    if abs(value) > LARGEST:
        raise ValueError(f"should lie between -{LARGEST:g} and {LARGEST:g}")
    return value


Id = Annotated[str, PlainValidator(_id)]
"""Plain, because the name of a file that is not UTF-8 holds surrogates, which pydantic refuses."""
Number = Annotated[float, Field(allow_inf_nan=False), AfterValidator(_size)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Hash = Annotated[str, Field(pattern="^[0-9a-f]{1,64}$")]


class RecordLine(BaseModel):
    """records.jsonl: the keys of a `Record` in JSON. The scores are the keys that are not listed here."""

    model_config = ConfigDict(extra="allow", strict=True)
    __pydantic_extra__: dict[str, Number | None]

    id: Id
    sample: Count
    seed: Annotated[int, Field(ge=-(2**64), le=2**64)] | None
    residual: Number | None
    nfe_forward: Count | None
    nfe_vjp: Count | None
    seconds: Number | None
    sigma_y: Number | None
    measurement_hash: str | None
    peak_memory_mib: Number | None
    error: str | None
    info: dict[str, Number | None] = {}
    hashes: dict[Literal["truth", "restoration"], Hash] = {}


class PosteriorLine(BaseModel):
    """posterior.jsonl: an image, its number of samples, and scores."""

    model_config = ConfigDict(extra="allow", strict=True)
    __pydantic_extra__: dict[str, Number | None]

    id: Id
    samples: Count


def check_line(value: object, kind: type[BaseModel], scores: Sequence[str] = ()) -> None:
    """Raises ValueError, in a few words, where `value` is no line of this kind, or lacks one of the `scores`."""
    try:
        kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"] if part != "__pydantic_extra__")
        if first["type"] == "missing":
            raise ValueError(f"it lacks the key {key}") from error
        reason = str(first["ctx"]["error"]) if first["type"] == "value_error" else first["msg"][0].lower() + first["msg"][1:]
        shown = printable(json.dumps(first["input"], default=str), 40)
        raise ValueError(printable(f"{key}={shown}: {reason}" if key else "it is no JSON object", 300)) from error
    absent = next((name for name in scores if name not in value), None)
    if absent is not None:
        raise ValueError(f"it lacks the key {absent}")
