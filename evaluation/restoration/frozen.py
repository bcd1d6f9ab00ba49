"""Frozen measurements: truth, y and the operator's random parts of every image, in files that any project can read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch.utils.data import Dataset

from diffusion_priors.diffusion.image_random import image_generator
from diffusion_priors.evaluation.restoration.batches import Batch
from diffusion_priors.evaluation.restoration.module import RestorationModule
from diffusion_priors.runs.config import flat
from diffusion_priors.runs.files import write_whole

MANIFEST = "measurements.json"
VERSION = 1


def describe(operator: dict, noise_model: dict) -> dict[str, Any]:
    """Operator and noise as plain values; a file is what it holds, not where it lies."""
    return {key: _content(value) for key, value in flat({"operator": operator, "noise_model": noise_model}).items()}


def _content(value: Any) -> Any:
    if isinstance(value, str) and Path(value).is_file():
        return f"sha256 {sha256(Path(value).read_bytes()).hexdigest()}"
    return value


def freeze(root: Path, module: RestorationModule, images: Dataset, problem: dict) -> str:
    """Write <id>.safetensors for each image, then measurements.json; → the hash over all of them.

    Each file holds x0 (C, H, W), y (C', H', W') and sigma_y, in [-1, 1] units, and what the operator drew
    (operator.mask, operator.kernel, …). A folder that holds these measurements already is left as it is.
    Raises ValueError where it holds others.
    """
    first = range(0, len(images), images.num_samples)
    ids = [images[index].ids[0] for index in first]
    manifest = {"version": VERSION, "seed": module.measurement_seed, "problem": problem, "shape": list(module.image_shape)}
    if (root / MANIFEST).is_file():
        return FrozenImages(root, 1).same(manifest, ids)
    files = {}
    for index in first:
        batch = images[index]
        measurement = module.measure(batch)
        content = {"x0": batch.truth[0], "y": measurement.y[0], "sigma_y": measurement.sigma_y.flatten()}
        content |= {f"operator.{name}": buffer[0] for name, buffer in module.operator.named_buffers() if buffer.ndim == 4}
        data = save({name: value.contiguous() for name, value in content.items()})
        write_whole(root / f"{batch.ids[0]}.safetensors", lambda stream, data=data: stream.write(data))
        files[batch.ids[0]] = sha256(data).hexdigest()
    text = json.dumps(manifest | {"images": files, "hash": _over(files)}, indent=2)
    write_whole(root / MANIFEST, lambda stream: stream.write(text.encode() + b"\n"))
    return _over(files)


def _over(files: dict[str, str]) -> str:
    return sha256("".join(f"{name} {files[name]}\n" for name in sorted(files)).encode()).hexdigest()


class FrozenImages(Dataset):
    """Items (image, sample) of a folder that `freeze` made, sorted by id. `seed` is the one the measurements were drawn with.

    Raises FileNotFoundError or ValueError where the folder holds none or is damaged.
    """

    kind = "truth"

    def __init__(self, root: Path, num_samples: int = 1) -> None:
        self.root, self.num_samples = root, num_samples
        path = root / MANIFEST
        if not path.is_file():
            raise FileNotFoundError(f"no frozen measurements in {root} ({MANIFEST} is missing); make them with data.freeze={root}")
        try:
            content = json.loads(path.read_text())
            self.seed, self.problem, self.files = int(content["seed"]), dict(content["problem"]), dict(content["images"])
            self.shape, self.hash, version = tuple(content["shape"]), str(content["hash"]), content["version"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is damaged: {error!r}; make the measurements anew with data.freeze") from error
        if version != VERSION:
            raise ValueError(f"{path} is of version {version}, this project reads {VERSION}")
        if self.hash != _over(self.files):
            raise ValueError(f"{path} is damaged: its hash is not that of the images it lists; get it again, or freeze anew")
        self.ids = sorted(self.files)

    def __len__(self) -> int:
        return len(self.ids) * self.num_samples

    def __getitem__(self, item: int) -> Batch:
        index, sample = divmod(item, self.num_samples)
        content = load_file(self.root / f"{self.ids[index]}.safetensors")
        return Batch((self.ids[index],), (sample,), content["x0"][None], content["y"][None])

    def only(self, kept: Sequence[int]) -> FrozenImages:
        self.ids = [self.ids[index] for index in kept]
        return self

    def same(self, manifest: dict, ids: Sequence[str]) -> str:
        """The hash, where these are the measurements of `manifest` and `ids`. Raises ValueError with the difference."""
        found = {"version": VERSION, "seed": self.seed, "problem": self.problem, "shape": list(self.shape)}
        old, new = flat(found), flat(manifest)
        changes = [f"{key} was {old.get(key)!r}, is {new.get(key)!r}" for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
        if sorted(ids) != sorted(self.files):
            changes.append(f"{len(self.files)} images there, {len(ids)} here, {len({*ids} & {*self.files})} of the same name")
        if changes:
            raise ValueError(
                f"{self.root} holds other measurements: {'; '.join(changes)}; choose another folder, or these with data.measurements"
            )
        return self.hash

    def check(self, module: RestorationModule, problem: dict) -> None:
        """Compare operator, noise, size, every file's hash and every drawn part with what is here.

        Raises ValueError where something differs or is damaged.
        """
        changes = [
            f"{k} was {self.problem.get(k)!r}, is {problem.get(k)!r}"
            for k in sorted({*problem, *self.problem})
            if problem.get(k) != self.problem.get(k)
        ]
        if changes:
            raise ValueError(f"the measurements in {self.root} were made otherwise: {'; '.join(changes)}; set these as they were")
        if self.shape != tuple(module.image_shape):
            raise ValueError(f"the measurements in {self.root} are of images {self.shape}, the prior's are {tuple(module.image_shape)}")
        for name in self.ids:
            self._check_file(name, module)

    def _check_file(self, name: str, module: RestorationModule) -> None:
        path = self.root / f"{name}.safetensors"
        if not path.is_file() or sha256(path.read_bytes()).hexdigest() != self.files[name]:
            raise ValueError(f"{path} is missing or not the file that was frozen (its SHA-256 differs); get it again, or freeze anew")
        try:
            content = load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged: {error}") from error
        module.operator.draw(torch.zeros(1, *self.shape), [image_generator(self.seed, name, "measurement")])
        for key, buffer in module.operator.named_buffers():
            kept = content.get(f"operator.{key}")
            if kept is not None and not torch.allclose(buffer[0], kept, atol=1e-6):
                raise ValueError(f"the operator draws another {key} for {name} than {path} holds; the measurements are of another version")
