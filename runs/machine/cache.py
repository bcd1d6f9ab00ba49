"""The folder of what is kept between runs, and in it the compiled code of torch.compile."""

from __future__ import annotations

import os
import platform
from hashlib import blake2b
from pathlib import Path

COMPILED = "TORCHINDUCTOR_CACHE_DIR"
"""Of PyTorch: where torch.compile keeps code. By default this is a folder in /tmp, which is emptied at times and open to others."""
CPUINFO = Path("/proc/cpuinfo")


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/diffusion-priors, or ~/.cache/diffusion-priors."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "diffusion-priors").expanduser()


def compiled_code() -> Path:
    """The folder of compiled code: where the user has set it, else in our cache.

    Machines may share a home. Code is compiled for the very processor, and PyTorch finds it again by less than that, so that each
    kind of processor has a folder of its own.
    """
    return Path(os.environ.get(COMPILED) or cache_folder() / "compiled" / _processor())


def keep_compiled_code() -> None:
    """Have torch.compile keep its code in that folder, where later processes find it."""
    os.environ[COMPILED] = str(compiled_code())


def _processor() -> str:
    """A name of the processor's kind: a hash of its model and instructions where Linux says them."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    known = sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))})
    digest = blake2b("\n".join(known).encode(), digest_size=4).hexdigest()
    return f"{platform.machine()}-{digest}"
