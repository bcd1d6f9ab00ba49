"""A script, and then the largest memory of its process on standard error: python benchmarks/scale/peak.py evaluate.py OVERRIDES."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def main() -> None:
    sys.argv = [str(ROOT / sys.argv[1]), *sys.argv[2:]]
    sys.path[0] = str(ROOT)
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        import torch

        from diffusion_priors.runs.memory import peak_mib

        print(f"{peak_mib(torch.device('cpu')):.0f}", file=sys.stderr)


if __name__ == "__main__":
    main()
