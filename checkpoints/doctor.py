"""Examine a file of weights: what it is, whether it denoises, and which of its settings are wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import log
from pathlib import Path

import torch
from torch import Tensor

from diffusion_priors.checkpoints.denoising import (
    COMPARED,
    CURVE,
    DECIBELS,
    Faces,
    Found,
    corrections,
    errors,
    index_shift,
    psnr,
    reached,
    shrinkage,
    summary,
)
from diffusion_priors.checkpoints.identity import Fact, facts
from diffusion_priors.checkpoints.networks import Remembering
from diffusion_priors.conf.named import prior_from
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.priors.hub import path_or_hub
from diffusion_priors.images.find import find_images
from diffusion_priors.images.fit import Crop
from diffusion_priors.images.io import read_image

BUNDLED = Path(__file__).resolve().parent.parent / "examples" / "faces"
SURE_SHIFT = 3.0
"""Indices. By less than that, networks and images differ from each other anyhow."""
LEAST_DENOISING = 3.0
"""dB by which a prior is better than shrinkage at every level compared."""
TRIED = ("schedule", "output", "pixel range", "channels")
"""The settings of which every usual alternative is tried."""


@dataclass
class Examination:
    """What was found: facts, the curve, and sentences about what is confirmed, wrong, or not known.

    A row of the curve is σ/α and PSNR in dB of the noisy image over α, of the prior as it is, and of the prior with the changes found.
    """

    facts: list[Fact]
    curve: list[tuple[float, float, float, float]]
    confirmed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def examine(path: str, images: str | None = None, size: tuple[int, int] | None = None) -> Examination:
    """Load the prior at `path`, or of that name on the hub, and try it.

    It is tried on eight images of the folder `images`; without one, on the bundled faces.

    Raises FileNotFoundError and ValueError where prior or images cannot be loaded, OSError where the hub cannot be reached.
    """
    place = path_or_hub(path)
    prior = prior_from(place, {"size": size} if size else {})
    stated = facts(place, prior)
    prior = prior.with_network(Remembering(prior.network))
    faces = Faces.of(read_images(images or str(BUNDLED), prior))
    changes, corrected = corrections(prior, faces)
    found = Examination(stated, _curve(prior, corrected, faces))
    least = (shrinkage(faces, reached(corrected, COMPARED)) - errors(corrected, faces, COMPARED)).mean(dim=1).min().item() * DECIBELS
    if least < LEAST_DENOISING:
        found.wrong.append(
            f"it does not denoise: at one of the levels it is {least:.1f} dB better than shrinkage to the mean, and no usual mistake "
            "explains that. It was trained on other images, its weights are damaged or untrained, or its settings are unusual"
        )
        found.unknown.append(f"{', '.join(TRIED)} and index: nothing can be said of them")
        return found
    values = {fact.name: fact for fact in stated}
    found.wrong += [_mistake(one, values[one.change.setting]) for one in changes]
    right = [name for name in TRIED if name in values and name not in {one.change.setting for one in changes}]
    found.confirmed += [f"{name}: {values[name].value}; every usual alternative is worse" for name in right]
    _add_index(found, corrected, index_shift(corrected, faces))
    return found


def read_images(folder: str, prior: Prior, most: int = 8) -> Tensor:
    """(B, C, H, W) of the prior's size and channels, in [-1, 1]."""
    paths = find_images(folder).paths[:most]
    return torch.stack([read_image(path, prior.channels, prior.size, Crop()) for path in paths])


def _curve(prior: Prior, corrected: Prior, faces: Faces) -> list[tuple[float, float, float, float]]:
    rows = zip(reached(prior, CURVE), errors(prior, faces, CURVE), errors(corrected, faces, CURVE), strict=True)
    return [(ratio, psnr(torch.tensor([2 * log(ratio)])), psnr(own), psnr(other)) for ratio, own, other in rows]


def _mistake(found: Found, fact: Fact) -> str:
    change = found.change
    same = "".join(f"; as good: {other.setting} is {other.value}" for other in found.alike)
    return f"{change.setting} is {change.value}, not {fact.value} ({fact.source}): the error is {found.gain:.1f} dB lower{same}"


def _add_index(found: Examination, prior: Prior, shifts: list[float] | None) -> None:
    """What the measured shift of the index says, as far as it can be measured."""
    if prior.schedule.table is None:
        found.unknown.append("index: the network is fed no index, so none can be shifted")
        return
    if shifts is None:
        found.unknown.append("index: at no shift of up to 32 is the network calibrated, so the shift cannot be measured")
        return
    middle, low, high = summary(shifts)
    measured = f"measured {middle:+.1f} at three levels ({low:+.1f} to {high:+.1f})"
    if abs(middle) >= SURE_SHIFT and low * high > 0 and min(abs(low), abs(high)) > 1.0:
        found.wrong.append(f"index is shifted by {round(middle):+d}: the network expects t {round(middle):+d}; {measured}")
    elif low * high > 0:
        found.unknown.append(f"index: perhaps shifted by {middle:+.0f}, {measured}; less than {SURE_SHIFT:g} may also be these images")
    else:
        found.confirmed.append(f"index: not shifted, {measured}; a shift of 1 or 2 could not be seen")


def text(found: Examination) -> str:
    """The examination in lines for a terminal."""
    width = max(len(fact.name) for fact in found.facts)
    lines = [f"{fact.name:<{width}}  {fact.value}   ({fact.source})" for fact in found.facts]
    lines += ["", "one-step denoising, PSNR in dB", f"{'sigma/alpha':>11}  {'noisy':>7}  {'as it is':>8}  {'corrected':>9}"]
    lines += [f"{ratio:>11.3g}  {noisy:>7.2f}  {own:>8.2f}  {other:>9.2f}" for ratio, noisy, own, other in found.curve]
    lines += ["", *(f"{word}: {sentence}" for word, of in _kinds(found) for sentence in of)]
    return "\n".join(lines)


def _kinds(found: Examination) -> list[tuple[str, list[str]]]:
    return [("wrong", found.wrong), ("confirmed", found.confirmed), ("unknown", found.unknown)]
