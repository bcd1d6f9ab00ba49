"""Frozen measurements: truth, y and the operator's random parts of every image, in files that any project can read."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from diffusion_priors.diffusion.image_random import image_generator
from diffusion_priors.evaluation.reporting.format import counted
from diffusion_priors.evaluation.restoration.batches import Batch, Items
from diffusion_priors.images.find import Found
from diffusion_priors.images.ids import alike
from diffusion_priors.operators.base import Operator
from diffusion_priors.runs.config import changed_keys, flat, listed
from diffusion_priors.runs.files import write_whole
from diffusion_priors.runs.ids import check_id

if TYPE_CHECKING:  # Lightning is slow to import
    from diffusion_priors.evaluation.restoration.module import RestorationModule

MANIFEST = "measurements.json"
VERSION = 1


def measurement_spec(operator: dict, noise_model: dict) -> dict[str, Any]:
    """Operator and noise model as plain values {dotted key: value}. A file is described by its content, not by its path."""
    return {key: _content(value) for key, value in flat({"operator": operator, "noise_model": noise_model}).items()}


def _content(value: Any) -> Any:
    if isinstance(value, str) and Path(value).is_file():
        return f"sha256 {sha256(Path(value).read_bytes()).hexdigest()}"
    return value


def is_frozen(root: Path) -> bool:
    """Whether `root` holds a complete set of frozen measurements."""
    return (root / MANIFEST).is_file()


def manifest(seed: int, spec: dict, image_shape: Sequence[int]) -> dict[str, Any]:
    """What a set of measurements was made with, as its file says."""
    return {"version": VERSION, "seed": seed, "problem": spec, "shape": list(image_shape)}


def check_free(root: Path, made_with: dict, ids: Sequence[str]) -> None:
    """Raises ValueError where `root` is no folder, or holds other measurements than those of `made_with` and `ids`."""
    nearest = next(path for path in (root, *root.resolve().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise ValueError(f"no measurements can be written to {root}: {nearest} is no folder that can be written; set data.freeze")
    if is_frozen(root):
        FrozenImages(root).hash_if_same(made_with, ids)


def freeze(root: Path, module: RestorationModule, items: Items, spec: dict) -> str:
    """Write <id>.safetensors for each image, then measurements.json; → the hash over all of them.

    Each file holds x0 (C, H, W), y and sigma_y, in [-1, 1] units where y is an image, and what the operator drew
    (operator.mask, operator.kernel, …). A folder that already holds these measurements is left as it is.
    Raises ValueError where it holds others.
    """
    made_with = manifest(module.measurement_seed, spec, module.image_shape)
    if is_frozen(root):
        return FrozenImages(root).hash_if_same(made_with, items.ids)
    files = {}
    for index in range(0, len(items), items.num_samples):
        batch = items[index]
        data = save(_tensors(module, batch))
        write_whole(root / f"{batch.ids[0]}.safetensors", lambda stream, data=data: stream.write(data))
        files[batch.ids[0]] = sha256(data).hexdigest()
    text = json.dumps(made_with | {"images": files, "hash": _over(files)}, indent=2)
    write_whole(root / MANIFEST, lambda stream: stream.write(text.encode() + b"\n"))
    return _over(files)


def _tensors(module: RestorationModule, batch: Batch) -> dict[str, torch.Tensor]:
    """The content of one image's file."""
    measurement = module.measure(batch)
    content = {"x0": batch.truth[0], "y": measurement.y[0], "sigma_y": measurement.sigma_y.flatten()}
    content |= {f"operator.{name}": buffer[0] for name, buffer in module.operator.named_buffers() if buffer.ndim == 4}
    return {name: value.contiguous() for name, value in content.items()}


def _over(files: dict[str, str]) -> str:
    return sha256("".join(f"{name} {files[name]}\n" for name in sorted(files)).encode()).hexdigest()


class FrozenImages(Items):
    """The items of a folder that `freeze` made, sorted by id, with the measurements that were drawn with `measurement_seed`.

    Raises FileNotFoundError or ValueError where the folder holds none or is damaged.
    """

    has_truth = True

    def __init__(self, root: Path, num_samples: int = 1) -> None:
        self.root = root
        path = root / MANIFEST
        if not path.is_file():
            raise FileNotFoundError(f"no frozen measurements in {root} ({MANIFEST} is missing); make them with data.freeze={root}")
        try:
            content = _Manifest.model_validate_json(path.read_bytes())
            for name in content.images:
                check_id(name)
            if (two := alike(content.images)) is not None:
                raise ValueError(f"the ids {two[0]} and {two[1]} would share a folder")
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {_first_line(error)}; make the measurements again with data.freeze") from error
        if content.version != VERSION:
            raise ValueError(
                f"{path} is of version {content.version}, this project reads {VERSION}; make the measurements again with data.freeze"
            )
        if content.hash != _over(content.images):
            raise ValueError(f"{path} is damaged: its hash is not that of the images it lists; get it again, or make it with data.freeze")
        self.measurement_seed, self.spec, self.files = content.seed, content.problem, content.images
        self.shape, self.hash = content.shape, content.hash
        super().__init__(sorted(self.files), num_samples)

    def check_apart(self, output: Path) -> None:
        Found(folders=[self.root]).check_apart(output)

    def __getitem__(self, item: int) -> Batch:
        index, sample = divmod(item, self.num_samples)
        content = load_file(self.root / f"{self.ids[index]}.safetensors")
        return Batch((self.ids[index],), (sample,), content["x0"][None], content["y"][None])

    def only(self, kept: Sequence[int]) -> Self:
        """Keep these images, by their index."""
        self.ids = [self.ids[index] for index in kept]
        return self

    def hash_if_same(self, made_with: dict, ids: Sequence[str]) -> str:
        """The hash, where these are the measurements of `made_with` and `ids`. Raises ValueError with the difference."""
        changes = changed_keys(flat(manifest(self.measurement_seed, self.spec, self.shape)), flat(made_with))
        if sorted(ids) != sorted(self.files):
            changes.append(f"{counted(len(self.files), 'image')} there, {len(ids)} here, {len({*ids} & {*self.files})} of the same name")
        if changes:
            raise ValueError(
                f"{self.root} holds other measurements: {listed(changes)}; "
                f"choose another folder, or read these with data.measurements={self.root}"
            )
        return self.hash

    def check(self, operator: Operator, image_shape: tuple[int, int, int], measurement_spec: dict) -> None:
        """Compare operator, noise model, size, every file's hash and every drawn part with those of this run.

        Raises ValueError where something differs or is damaged.
        """
        changes = changed_keys(self.spec, measurement_spec)
        if changes:
            raise ValueError(f"the measurements in {self.root} were made otherwise: {listed(changes)}; set these as they were")
        if self.shape != tuple(image_shape):
            raise ValueError(f"the measurements in {self.root} are of images {self.shape}, the prior's are {tuple(image_shape)}")
        for name in self.ids:
            self._check_file(name, operator)

    def _check_file(self, name: str, operator: Operator) -> None:
        path = self.root / f"{name}.safetensors"
        if not path.is_file() or sha256(path.read_bytes()).hexdigest() != self.files[name]:
            raise ValueError(f"{path} is missing or not the file that was frozen (its SHA-256 differs); get it again, or freeze again")
        try:
            content = load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged: {error}; get it again, or freeze again") from error
        blank = torch.zeros(1, *self.shape)
        operator.draw(blank, [image_generator(self.measurement_seed, name, "measurement")])
        _check_tensor(path, content, "x0", blank[0], 1.0)
        _check_tensor(path, content, "y", operator(blank)[0])
        for key, buffer in operator.named_buffers():
            kept = content.get(f"operator.{key}")
            if kept is not None and not (_alike(kept, buffer[0]) and torch.allclose(buffer[0], kept, atol=1e-6)):
                raise ValueError(
                    f"the operator draws another {key} for {name} than {path} holds; the measurements are of another version, freeze again"
                )


class _Manifest(BaseModel):
    """The content of measurements.json."""

    model_config = ConfigDict(strict=True)
    version: int
    seed: int
    problem: dict[str, Any]
    shape: tuple[int, int, int]
    images: dict[str, str]
    hash: str


def _first_line(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first["loc"] else first["msg"]
    return str(error)


def _alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype


def _check_tensor(path: Path, content: dict[str, torch.Tensor], name: str, like: torch.Tensor, largest: float | None = None) -> None:
    """Raises ValueError where `name` is missing, of another kind than `like`, not finite, or beyond `largest`."""
    found, problem = content.get(name), None
    if found is None:
        problem = "is missing"
    elif not _alike(found, like):
        problem = f"is {tuple(found.shape)} {found.dtype}, and {tuple(like.shape)} {like.dtype} is wanted"
    elif not torch.isfinite(torch.view_as_real(found) if found.is_complex() else found).all():
        problem = "has values that are not finite"
    elif largest is not None and found.abs().max() > largest + 1e-3:
        problem = f"has values beyond [-{largest:g}, {largest:g}]"
    if problem is not None:
        raise ValueError(f"{path} cannot be used: {name} {problem}; get it again, or freeze again")
