"""The installed command: `diffusion-priors sample solver=dps` is `python sample.py solver=dps` in a checkout."""

from __future__ import annotations

import runpy
import sys

SCRIPTS = {
    "sample": "restore images with a diffusion prior",
    "evaluate": "restore a folder of images, score, resume, compare, sweep",
    "train": "train or fine-tune a prior",
    "checkpoints": "examine, convert, export, pull and push files of priors",
}
USAGE = "\n".join(
    [
        "diffusion-priors COMMAND [group=option] [key=value]; diffusion-priors COMMAND --help lists the groups and keys",
        "",
        *(f"  {name:<13}{what}" for name, what in SCRIPTS.items()),
    ]
)


def main() -> None:
    """Run the script that the first argument names, as `python -m diffusion_priors.NAME` would: processes that it starts do that."""
    name, *arguments = sys.argv[1:] or [""]
    if name in ("-h", "--help"):
        print(USAGE)
        return
    if name not in SCRIPTS:
        found = f"{name!r} is unknown" if name else "no command is given"
        sys.exit(_refused(f"{found}; choose one of {', '.join(SCRIPTS)}, as in diffusion-priors sample"))
    sys.argv[1:] = arguments
    runpy.run_module(f"diffusion_priors.{name}", run_name="__main__", alter_sys=True)


def _refused(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
