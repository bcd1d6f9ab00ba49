"""Folders on the hub of huggingface_hub: fetched once, kept in its cache, and found there without a network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffusion_priors.runs.printable import printable, without_secrets
from diffusion_priors.runs.values import shown

NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
"""owner/name"""


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

    Raises ImportError without huggingface_hub; OSError where they are neither on the hub nor in the cache.
    """
    hub = library()
    try:
        return Path(hub.snapshot_download(name, revision=revision, cache_dir=cache, allow_patterns=list(files)))
    except (OSError, ValueError, hub.errors.HfHubHTTPError) as error:
        reason = printable(without_secrets((str(error).strip().splitlines() or [type(error).__name__])[0]), 300)
        raise OSError(f"cannot fetch {name} from the hub: {reason}") from error


def library() -> Any:
    """huggingface_hub. Raises ImportError that says how to install it."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError("the hub needs huggingface_hub; pip install 'diffusion-priors[hub]'") from error
    return huggingface_hub
