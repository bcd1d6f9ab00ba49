"""Training images, decoded once: a folder or a zip → one memory-mapped array of bytes."""

from __future__ import annotations

import fcntl
import json
import lzma
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
import torch

from diffusion_priors.evaluation.reporting.format import counted
from diffusion_priors.images.find import check_path, search
from diffusion_priors.images.fit import Box, Fit
from diffusion_priors.images.formats import SUFFIXES
from diffusion_priors.images.io import decode_image

VERSION = 1


@dataclass(frozen=True)
class ImageStore:
    """`pixels` (N, C, H, W) uint8, memory-mapped; `ids` are the images' names; `skipped` lists (name, reason).

    `notices` are lines about folders that were not searched.
    """

    pixels: np.ndarray
    ids: list[str]
    skipped: list[tuple[str, str]]
    notices: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def image(self, index: int) -> torch.Tensor:
        """(C, H, W) float32 in [-1, 1]."""
        return torch.from_numpy(self.pixels[index].astype(np.float32) / 127.5 - 1.0)


class WithoutEnlarging(Fit):
    """Apply another fit. Raises ValueError for an image smaller than the wanted size."""

    def __init__(self, fit: Fit) -> None:
        self.fit = fit

    def box(self, height: int, width: int, size: tuple[int, int]) -> Box:
        if height < size[0] or width < size[1]:
            raise ValueError(f"it is {height} x {width}, smaller than {size[0]} x {size[1]}")
        return self.fit.box(height, width, size)


def store_images(root: str, channels: int, size: tuple[int, int], fit: Fit, cache: Path, enlarge: bool = False) -> ImageStore:
    """All images under `root` at `size`, decoded into `cache` the first time and read from there afterwards.

    The key of a cached file consists of the images' names, sizes and times, and of how they are fitted. The file is
    written whole or not at all. Processes that start together decode once. Unusable images are skipped and listed.

    Raises FileNotFoundError if there are no images, ValueError if more than half of them cannot be used.
    """
    notices: list[str] = []
    sources = sorted(_sources(root, notices), key=lambda source: source.name)
    if not sources:
        raise FileNotFoundError(f"no images in {root}; it should contain files like {', '.join(sorted(SUFFIXES)[:6])}")
    files = [(source.name, source.stamp) for source in sources]
    fitted = (type(fit).__name__, sorted(vars(fit).items()), enlarge)
    described = (VERSION, str(Path(root).expanduser().resolve()), files, channels, tuple(size), fitted)
    key = blake2b(repr(described).encode(), digest_size=12).hexdigest()
    index, array = cache / f"{key}.json", cache / f"{key}.npy"
    if not (index.exists() and array.exists()):
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with _locked(cache / f"{key}.lock"):
                if not (index.exists() and array.exists()):
                    _decode(sources, channels, size, fit if enlarge else WithoutEnlarging(fit), array, index)
        except OSError as error:
            raise OSError(
                f"cannot store the decoded images in {cache}: {error.strerror or error}; free disk space or set data.cache"
            ) from error
    known = json.loads(index.read_text())
    store = ImageStore(np.load(array, mmap_mode="r")[: len(known["ids"])], known["ids"], [tuple(s) for s in known["skipped"]], notices)
    if len(store.skipped) > len(store):
        name, reason = store.skipped[0]
        raise ValueError(
            f"{len(store.skipped)} of {counted(len(sources), 'image')} in {root} cannot be used, the first {name}: {reason}; "
            "fix them, set another data.root, or for small images lower prior.size or set data.enlarge=true"
        )
    return store


@dataclass(frozen=True)
class _Source:
    name: str
    stamp: tuple[int, int]
    open: Callable[[], BinaryIO]


def _sources(root: str, notices: list[str]) -> Iterator[_Source]:
    """The images of a folder or a zip. One that is no file is skipped with its reason when it is opened."""
    check_path(root)
    path = Path(root).expanduser()
    if path.is_file() and path.suffix.lower() == ".zip":
        try:
            archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise ValueError(f"{path} is not a readable zip file: {error}; set data.root to a folder or a zip of images") from error
        for entry in sorted(archive.infolist(), key=lambda e: e.filename):
            inner = PurePosixPath(entry.filename)
            if (
                inner.suffix.lower() in SUFFIXES
                and not entry.is_dir()
                and not any(part.startswith(".") or part == "__MACOSX" for part in inner.parts)
            ):
                yield _Source(entry.filename, (entry.file_size, entry.CRC), lambda entry=entry: archive.open(entry))
        return
    if not path.is_dir():
        raise FileNotFoundError(f"no folder and no zip at {root}; set data.root (or data.validation) to a folder or a zip of images")
    found = search(path)
    notices += found.notices
    for file, below in found.images:
        status = file.stat()
        yield _Source(below.as_posix(), (status.st_size, status.st_mtime_ns), lambda file=file: file.open("rb"))
    for file, reason in found.unusable:
        yield _Source(file.relative_to(path).as_posix(), (0, 0), partial(_refuse, reason))


def _refuse(reason: str) -> BinaryIO:
    raise ValueError(reason)


def _decode(sources: list[_Source], channels: int, size: tuple[int, int], fit: Fit, array: Path, index: Path) -> None:
    """Write `array`, then `index`: an array counts as complete once its index exists."""
    unfinished = array.with_suffix(".partial")
    ids, skipped = [], []
    try:
        pixels = np.lib.format.open_memmap(unfinished, mode="w+", dtype=np.uint8, shape=(len(sources), channels, *size))
        _reserve_disk_space(unfinished)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            remaining = iter(sources)
            while chunk := list(islice(remaining, 1024)):  # bounds the memory: only the array grows, and it is on disk
                decoded = pool.map(lambda source: _decoded(source, channels, size, fit), chunk)
                for source, result in zip(chunk, decoded, strict=True):
                    if isinstance(result, str):
                        skipped.append((source.name, result))
                    else:
                        pixels[len(ids)] = result
                        ids.append(source.name)
        pixels.flush()
        os.replace(unfinished, array)
        unfinished.write_text(json.dumps({"ids": ids, "skipped": skipped}))
        os.replace(unfinished, index)
    finally:
        unfinished.unlink(missing_ok=True)


def _decoded(source: _Source, channels: int, size: tuple[int, int], fit: Fit) -> np.ndarray | str:
    """(C, H, W) uint8, or the reason why the image cannot be used."""
    try:
        with source.open() as stream:
            image = decode_image(stream, channels, size, fit)
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError) as error:
        return str(error) or type(error).__name__
    return ((image.numpy() + 1.0) * 127.5).round().astype(np.uint8)


def _reserve_disk_space(path: Path) -> None:
    """Raise OSError on a full disk. A memory map is sparse, and writing to it on a full disk would kill the process."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process in at a time."""
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
