"""Folders on the hub of huggingface_hub: fetched once, kept in its cache, and found there without a network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import file_digest
from pathlib import Path
from typing import Any

from diffusion_priors.runs.printable import printable, without_secrets
from diffusion_priors.runs.values import shown

NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
"""owner/name"""
SHA256 = re.compile(r"[0-9a-f]{64}")
PUSHED = ("*.safetensors", "*.json", "card.yaml", "README.md", "samples.png")
"""What is uploaded of a folder, and fetched of one: nothing that could hold code."""


def path_or_hub(name: str) -> Path:
    """The file or folder of that path; else the folder of the prior "owner/name" on the hub.

    Raises FileNotFoundError for what is neither; OSError where it cannot be fetched; ValueError where it is damaged.
    """
    if Path(name).exists():
        return Path(name)
    if not NAME.fullmatch(name):
        raise FileNotFoundError(f"no file or folder at {shown(name)}, and it is no name on the hub (owner/name)")
    try:
        return pull(name, PUSHED)
    except (ImportError, OSError) as error:
        raise OSError(
            f"no file or folder at {shown(name)}, and {error}; set prior to a path, or fetch it where there is a network"
        ) from error


def folder_or_hub(path: str, files: Sequence[str], revision: str | None = None, cache: str | None = None) -> Path:
    """The folder at `path`; else the files of the repository "owner/name" on the hub whose names match `files`.

    Raises FileNotFoundError for what is neither, and what `pull` raises.
    """
    if Path(path).is_dir():
        return Path(path)
    if not NAME.fullmatch(path):
        raise FileNotFoundError(f"no folder at {shown(path)}, and it is no name on the hub (owner/name); set prior.path")
    return pull(path, files, revision, cache)


def pull(name: str, files: Sequence[str], revision: str | None = None, cache: str | None = None) -> Path:
    """The folder with the repository's files that match `files`, fetched where they are not in the cache.

    Raises ImportError without huggingface_hub; OSError where they are neither on the hub nor in the cache; ValueError where a file
    has not the SHA-256 under which the hub lists it.
    """
    hub = library()
    try:
        folder = Path(hub.snapshot_download(name, revision=revision, cache_dir=cache, allow_patterns=list(files)))
    except (OSError, ValueError, hub.errors.HfHubHTTPError) as error:
        raise OSError(f"cannot fetch {name} from the hub: {_reason(error)}") from error
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            _check_hash(path)
    return folder


def pull_file(name: str, file: str, revision: str | None = None, cache: str | None = None) -> Path:
    """One file of a repository, fetched where it is not in the cache, and compared with the SHA-256 under which the hub lists it.

    Raises ImportError without huggingface_hub; OSError where it is neither on the hub nor in the cache; ValueError where the hash
    differs.
    """
    hub = library()
    try:
        path = Path(hub.hf_hub_download(name, file, revision=revision, cache_dir=cache))
    except (OSError, ValueError, hub.errors.HfHubHTTPError) as error:
        raise OSError(f"cannot fetch {file} of {name} from the hub: {_reason(error)}") from error
    _check_hash(path)
    return path


def push(folder: Path, name: str, public: bool = False) -> str:
    """Upload a prior's folder as the repository "owner/name", made where there is none, private unless `public`; → its address.

    Raises ImportError without huggingface_hub, OSError where the hub refuses, ValueError where the folder holds no prior.
    """
    if not any((folder / file).is_file() for file in ("card.yaml", "model_index.json")):
        raise ValueError(f"{folder} holds no prior: neither card.yaml nor model_index.json is in it")
    if not NAME.fullmatch(name):
        raise ValueError(f"{shown(name)} is no name on the hub; write owner/name")
    hub = library()
    try:
        api = hub.HfApi()
        api.create_repo(name, private=not public, exist_ok=True)
        return str(api.upload_folder(repo_id=name, folder_path=str(folder), allow_patterns=list(PUSHED)))
    except (OSError, ValueError, hub.errors.HfHubHTTPError) as error:
        raise OSError(f"cannot push {folder} to {name}: {_reason(error)}") from error


def _check_hash(path: Path) -> None:
    """The cache names a large file by the SHA-256 under which the hub lists it; small ones have another name, and are not compared."""
    listed = path.resolve().name
    if not SHA256.fullmatch(listed):
        return
    with path.open("rb") as stream:
        if file_digest(stream, "sha256").hexdigest() != listed:
            raise ValueError(f"{path} is damaged: its SHA-256 is not {listed}, under which the hub lists it; delete it and fetch it again")


def _reason(error: Exception) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return printable(without_secrets(line.removeprefix("Got: ").rstrip(".")), 300)


def library() -> Any:
    """huggingface_hub. Raises ImportError that says how to install it."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError("the hub needs huggingface_hub; pip install 'diffusion-priors[hub]'") from error
    return huggingface_hub
