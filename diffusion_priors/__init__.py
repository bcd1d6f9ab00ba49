"""Solve image inverse problems with diffusion priors. Every import of the project starts here: `diffusion_priors.solvers.dps`.

The packages are the top-level folders of the repository. In a checkout they are links in this folder, so that Python,
editors and type checkers all find them under this one name; in an installed wheel they are ordinary folders.
"""

from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
if (_ROOT / "pyproject.toml").is_file():  # a checkout without symbolic links, as on Windows: the folders stand one level up
    __path__.append(str(_ROOT))
