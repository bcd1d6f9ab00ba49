"""Which image files an input names, and the id of each."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from diffusion_priors.images.formats import SUFFIXES, not_a_file
from diffusion_priors.images.ids import alike, image_id
from diffusion_priors.runs.layout import FIGURE, IMAGES, RELIABILITY, is_run
from diffusion_priors.runs.printable import printable


@dataclass
class Found:
    """Image files in order: (the path to open, the path below what was given).

    `unusable` are entries with the name of an image that are no files, with the reason. `runs` are folders of runs and
    `links` links to folders: neither is searched. `folders` are those that were.
    """

    images: list[tuple[Path, Path]] = field(default_factory=list)
    unusable: list[tuple[Path, str]] = field(default_factory=list)
    runs: list[Path] = field(default_factory=list)
    links: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)

    @property
    def paths(self) -> list[Path]:
        return [path for path, _ in self.images]

    @property
    def ids(self) -> list[str]:
        """An id for each image, in order. Raises ValueError where two are the same file or would share a folder."""
        ids = [image_id(below) for _, below in self.images]
        twice, times = Counter(path.resolve() for path in self.paths).most_common(1)[0]
        if times > 1:
            raise ValueError(f"the image {twice} is given twice; results are stored by image, so give it once")
        name, times = Counter(ids).most_common(1)[0]
        shared = (name, name) if times > 1 else alike(ids)
        if shared is not None:
            first, second = (self.paths[at] for at in (ids.index(shared[0]), len(ids) - 1 - ids[::-1].index(shared[1])))
            raise ValueError(
                f"the images {first} and {second} would share the id {shared[0]} (upper and lower case count as one); "
                "give the folder that holds both, or rename one"
            )
        return ids

    @property
    def notices(self) -> list[str]:
        """What was left out, a line for each kind."""
        kinds = ((self.runs, "folders of runs and sweeps"), (self.links, "links to folders"))
        return [f"left out: {what}: {some([printable(str(path), 200) for path in paths])}" for paths, what in kinds if paths]

    def check_apart(self, output: Path) -> None:
        """Raises ValueError where a run in the folder `output` would write into a folder of these images, or over one of them."""
        here = output.resolve()
        own = {here / name for name in (FIGURE, RELIABILITY)}
        for path in (path.resolve() for path in (*self.folders, *self.paths)):
            if path == here or path in own or path.is_relative_to(here / IMAGES):
                raise ValueError(f"the run in output_dir={output} would write where its images are, at {path}; choose another output_dir")

    def merge(self, other: Found) -> None:
        for name in ("images", "unusable", "runs", "links", "folders"):
            getattr(self, name).extend(getattr(other, name))


def find_images(where: str | Sequence[str], suffixes: Collection[str] = SUFFIXES) -> Found:
    """The images that `where` names: a file, a folder (searched recursively), a glob, or a list of these in its own order.

    In folders and for globs, files with these `suffixes` count. Below a folder, hidden files and folders, folders of runs and
    links to folders are left out.
    Raises ValueError or FileNotFoundError where nothing is named or found, and for an entry that is no file.
    """
    found = Found()
    for one in [where] if isinstance(where, str) else where:
        found.merge(_find(one, suffixes))
    if found.unusable:
        path, reason = found.unusable[0]
        more = f" (as {len(found.unusable) - 1} more)" if len(found.unusable) > 1 else ""
        raise ValueError(f"cannot use the image {path}: {reason}{more}; remove it")
    if not found.images:
        raise ValueError(f"no image is given, got {where!r}; give a file, a folder or a glob")
    return found


def _find(where: str, suffixes: Collection[str]) -> Found:
    check_path(where)
    try:
        path = Path(where).expanduser()
    except RuntimeError:  # ~somebody, who has no home here
        path = Path(where)
    try:
        is_folder = path.is_dir()
    except OSError as error:
        raise ValueError(f"no image at {where[:60]}…: {error.strerror}; give a file, a folder or a glob that exists") from error
    if is_folder:
        found = search(path, suffixes)
        if not found.images and not found.unusable:
            left_out = f" ({'; '.join(found.notices)})" if found.notices else ""
            raise FileNotFoundError(
                f"no images in the folder {where}{left_out}; it should hold files like {', '.join(sorted(suffixes)[:6])}"
            )
        return found
    if os.path.lexists(path):
        found, reason = Found(), not_a_file(path)
        if reason is None:
            found.images.append((path, Path(path.name)))
        else:
            found.unusable.append((path, reason))
        return found
    found = _matches(path, suffixes)
    if not found.images and not found.unusable:
        raise FileNotFoundError(f"no image at {where}; give a file, a folder or a glob that exists")
    return found


def check_path(where: str) -> None:
    """Raises ValueError for a path that is empty or that config.yaml cannot hold."""
    if not where.strip():
        raise ValueError(f"the path of the images is empty, got {where!r} (an unset variable?); give a file, a folder or a glob")
    if not _is_utf8(where):
        raise ValueError(f"the path {where!r} is not UTF-8, so the run cannot keep it; rename it, or give the folder above it")
    if "\0" in where:
        raise ValueError(f"the path {where!r} holds a null character, which no file name has")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def search(folder: Path, suffixes: Collection[str] = SUFFIXES) -> Found:
    """The images below `folder`, sorted. Raises OSError for a folder that cannot be read, ValueError for that of a run."""
    _refuse_run(folder)
    found = Found(folders=[folder])
    for here, folders, files in os.walk(folder, onerror=_raise):
        inside = [Path(here, name) for name in sorted(folders) if not name.startswith(".")]
        found.links += [path for path in inside if path.is_symlink()]
        runs = [path for path in inside if not path.is_symlink() and is_run(path)]
        found.runs += runs
        folders[:] = [path.name for path in inside if path not in {*runs}]
        _sort_in(found, (Path(here, name) for name in files if not name.startswith(".")), folder, suffixes)
    found.images.sort()
    return found


def _refuse_run(folder: Path) -> None:
    real = folder.resolve()
    if is_run(real) or (real.name == IMAGES and is_run(real.parent)):
        hint = folder if real.name == IMAGES else folder / IMAGES
        raise ValueError(f"{folder} belongs to a run or a sweep; name its images themselves, as in '{hint}/*/truth.png'")


def _matches(pattern: Path, suffixes: Collection[str]) -> Found:
    """What a glob matches, below its part without wildcards. Images of runs count only where the pattern names their folder."""
    found = Found()
    fixed = list(pattern.parts)
    while fixed and any(glob.has_magic(part) for part in fixed):
        fixed.pop()
    root = Path(*fixed)
    if fixed == list(pattern.parts):
        return found
    matches = sorted(path for path in map(Path, glob.glob(str(pattern), recursive=True)) if not path.is_dir())
    if IMAGES not in pattern.parts:
        _refuse_run(root)
        runs: dict[Path, bool] = {}
        kept = []
        for path in matches:
            inside = [folder for folder in path.parents if folder.is_relative_to(root) and folder != root]
            own = next((folder for folder in inside if runs.setdefault(folder, is_run(folder))), None)
            if own is None:
                kept.append(path)
            elif own not in found.runs:
                found.runs.append(own)
        matches = kept
    _sort_in(found, matches, root, suffixes)
    return found


def _sort_in(found: Found, paths: Iterator[Path] | Sequence[Path], root: Path, suffixes: Collection[str]) -> None:
    """Those with one of these `suffixes`: files to the images, others to the unusable."""
    for path in paths:
        if path.suffix.lower() in suffixes:
            reason = not_a_file(path)
            if reason is None:
                found.images.append((path, path.relative_to(root)))
            else:
                found.unusable.append((path, reason))


def _raise(error: OSError) -> None:
    raise error


def some(texts: Sequence[str]) -> str:
    """The first three texts of a notice, and how many there are."""
    return ", ".join(texts[:3]) + (f", … ({len(texts)} in all)" if len(texts) > 3 else "")
