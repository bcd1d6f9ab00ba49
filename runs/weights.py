"""Files of weights: found or downloaded whole, and read without running code from them."""

from __future__ import annotations

import pickle
import socket
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from diffusion_priors.runs.printable import printable, without_secrets
from diffusion_priors.runs.values import shown

NO_BEGINNING = "damaged or no checkpoint: it does not begin as one (a saved web page?); fetch it again"


def hub_cache() -> Path:
    """The folder in which torch keeps downloaded weights."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def find_or_fetch(
    what: str, path: str | None, cached: Path, url: str | None, sha256: str | None, advice: str, timeout: float | None = None
) -> Path:
    """The file `path`. Without a path, the file `cached`, which is first downloaded from `url` if it does not exist.

    `what` and `advice` complete the errors: "no {what} at {path}; {advice}". Raises FileNotFoundError for a path that
    names no file, and for a file that is neither cached nor has a url. Raises what `fetch` raises.
    """
    if path is not None:
        if not Path(path).is_file():
            raise FileNotFoundError(f"no {what} at {path}; {advice}")
        return Path(path)
    if not cached.is_file():
        if url is None:
            raise FileNotFoundError(f"no {what} {cached.name} in {cached.parent}; {advice}")
        fetch(url, cached, sha256, timeout)
    return cached


def fetch(url: str, target: Path, sha256: str, timeout: float | None = None) -> None:
    """Download `url` to `target`, whole and with this SHA-256 (or a prefix of it), or not at all.

    `timeout` bounds the seconds of silence from the server. Raises OSError if the server cannot be reached, ValueError
    if the hash differs.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{without_secrets(url)} is no address of the web; it must begin with https://")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _socket_timeout(timeout):
            torch.hub.download_url_to_file(url, str(target), hash_prefix=sha256, progress=sys.stderr.isatty())
    except RuntimeError as error:
        raise ValueError(f"{without_secrets(url)} is not the file expected: {error}; check the url and the sha256") from error
    except OSError as error:
        raise OSError(f"cannot fetch {without_secrets(url)}: {error}") from error


def read_state_dict(path: Path, key: str | None = None) -> dict[str, Tensor]:
    """The flat state dict in a safetensors or PyTorch file; a Lightning-like {"state_dict": …} is unwrapped.

    `key` names the entry to unwrap in other files. Raises ValueError for a damaged file, one that holds pickled code (which is
    not run), anything but tensors, and where the entry `key` is missing.
    """
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise ValueError(f"{path} is damaged or no checkpoint: {_first_line(error)}; fetch it again") from error
    content = read_checkpoint(path)
    if key is not None:
        if not isinstance(content.get(key), Mapping):
            raise ValueError(f"{path} has no entry {shown(key)} with tensors; it holds {_names(content)}; set prior.checkpoint.key")
        content = content[key]
    elif isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not content or not all(isinstance(name, str) and isinstance(v, Tensor) for name, v in content.items()):
        entries = [name for name, value in content.items() if isinstance(value, Mapping)]
        advice = "set prior.checkpoint.key to the one of its entries that holds the network" if entries else "save network.state_dict()"
        raise ValueError(f"{path} is not a state dict of tensors but a {type(content).__name__} of {_names(content)}; {advice}")
    return dict(content)


def _names(content: Mapping) -> str:
    names = [shown(name if isinstance(name, str) else str(name)) for name in list(content)[:5]]
    return ", ".join(names) + (", …" if len(content) > 5 else "") or "nothing"


def read_checkpoint(path: Path) -> Mapping:
    """The mapping in a PyTorch file: tensors and plain values.

    Raises ValueError for a damaged file, one that holds pickled code (which is not run), or no mapping.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about tensors of a kind that is refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not _is_pickle(path):
            raise ValueError(f"{path} is {NO_BEGINNING}") from error
        raise ValueError(
            f"{path} holds pickled code besides tensors and was refused; none of it was run; save a plain state dict or safetensors"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        if isinstance(error, KeyError) and not _is_pickle(path):  # its first byte begins nothing in a pickle
            raise ValueError(f"{path} is {NO_BEGINNING}") from error
        raise ValueError(f"{path} is damaged or no checkpoint: {_first_line(error)}; fetch it again") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} is not a state dict of tensors but a {type(content).__name__}; save network.state_dict()")
    return content


def _is_pickle(path: Path) -> bool:
    """Whether a file begins as torch's do: a zip, or a pickle of protocol 2 and later (torch calls all else unsafe)."""
    with path.open("rb") as stream:
        return zipfile.is_zipfile(path) or stream.read(1) == b"\x80"


@contextmanager
def _socket_timeout(seconds: float | None) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(before if seconds is None else seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _first_line(error: Exception) -> str:
    return printable((str(error).splitlines() or [type(error).__name__])[0], 200)
