"""The rooms of the house and the one way between them, read off every import in the tree."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("conf", "diffusion", "operators", "solvers", "evaluation")
SCRIPTS = {"sample", "train", "evaluate"} | {path.stem for path in ROOT.glob("*.py")}
FILES = sorted(path.relative_to(ROOT).as_posix() for room in ROOMS for path in (ROOT / room).rglob("*.py")) + sorted(
    path.name for path in ROOT.glob("*.py")
)

MAY_IMPORT = {
    "scripts": {"conf", "evaluation", "solvers", "diffusion", "operators"},
    "conf": {"conf", "evaluation", "solvers", "diffusion", "operators"},
    "evaluation": {"evaluation", "solvers", "diffusion", "operators"},
    "solvers": {"solvers", "diffusion", "operators"},
    "diffusion": {"diffusion"},
    "operators": {"operators"},
}
LIVES_IN = {
    "hydra": ("conf/", "scripts"),
    "omegaconf": ("conf/", "scripts"),
    "wandb": ("evaluation/",),
    "pytorch_lightning": ("evaluation/", "diffusion/training", "diffusion/data"),
    "lightning": (),
}
"""Package → where it may be imported: beginnings of paths, or the scripts. Lightning goes by pytorch_lightning."""

HEAVY = {"torch", "torchvision", "torchmetrics", "pytorch_lightning", "lightning", "lpips", "wandb", "diffusers"}


def room_of(path: str) -> str:
    """The first folder of a path relative to the root; the scripts stand beside the rooms."""
    parts = PurePosixPath(path).parts
    return parts[0] if len(parts) > 1 else "scripts"


def imported(nodes: Iterator[ast.AST], path: str) -> Iterator[str]:
    """The dotted names that import statements bring in, `from a import b` as a.b, relative ones from the file's folder."""
    folder = PurePosixPath(path).parent.parts
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = folder[: len(folder) - node.level + 1] if node.level else ()
            base = ".".join((*above, *([node.module] if node.module else [])))
            yield from (f"{base}.{alias.name}" for alias in node.names)


def violations(path: str, source: str) -> list[str]:
    """What a file (its path relative to the root) does against the rules of the house, a line each."""
    tree, room = ast.parse(source), room_of(path)
    found = []
    for name in imported(ast.walk(tree), path):
        first = name.split(".")[0]
        if first in ROOMS and first not in MAY_IMPORT[room]:
            found.append(f"{path} imports {name}: {room} may not know {first}")
        if first in SCRIPTS:
            found.append(f"{path} imports {name}: nothing imports a script")
        if first == "tests":
            found.append(f"{path} imports {name}: nothing imports a test")
        if first in LIVES_IN and not any(room == place or path.startswith(place) for place in LIVES_IN[first]):
            found.append(f"{path} imports {name}: {first} lives in {' and '.join(LIVES_IN[first]) or 'no file'}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "cuda":
            found.append(f"{path}:{node.lineno} calls .cuda(): modules and buffers move themselves")
    return found


def outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    """Every statement that runs when the module is imported."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield child
            yield from outside_functions(child)


def loaded_by(path: str, source: str, files: dict[str, str] | None = None) -> set[str]:
    """The packages outside the project that importing a file loads, through the project's own modules too."""
    pending, seen, packages = [(path, source)], {path}, set()
    while pending:
        here, text = pending.pop()
        for name in imported(outside_functions(ast.parse(text)), here):
            parts = name.split(".")
            if parts[0] not in ROOMS:
                packages.add(parts[0])
                continue
            for end in range(1, len(parts) + 1):
                for file in ("/".join(parts[:end]) + ".py", "/".join(parts[:end]) + "/__init__.py"):
                    known = files[file] if files and file in files else (ROOT / file).read_text() if (ROOT / file).is_file() else None
                    if known is not None and file not in seen:
                        seen.add(file)
                        pending.append((file, known))
    return packages


def test_the_walk_sees_the_whole_house():
    assert {room_of(path) for path in FILES} == {"scripts", *ROOMS}
    assert "sample.py" in FILES


@pytest.mark.parametrize("path", FILES)
def test_imports_run_one_way_and_packages_stay_in_their_rooms(path):
    assert violations(path, (ROOT / path).read_text()) == []


@pytest.mark.parametrize("path", [path for path in FILES if room_of(path) == "scripts"])
def test_scripts_import_nothing_heavy_before_main(path):
    """--help, TAB and sweep launchers are to be instant."""
    assert loaded_by(path, (ROOT / path).read_text()) & HEAVY == set()
    name = Path(path).stem
    check = f"import sys, {name}; heavy = {HEAVY!r} & set(sys.modules); assert not heavy, heavy"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", [path for path in FILES if room_of(path) == "solvers" and not path.endswith(("base.py", "__init__.py"))])
def test_a_solver_fits_on_one_screen(path):
    assert len((ROOT / path).read_text().splitlines()) <= 70


WRONG = [
    ("diffusion/priors.py", "from operators.base import Operator", "diffusion may not know operators"),
    ("diffusion/networks/unet.py", "def f():\n    import operators.blur", "diffusion may not know operators"),
    ("operators/blur.py", "import diffusion.levels as levels", "operators may not know diffusion"),
    ("operators/blur.py", "from diffusion import levels", "operators may not know diffusion"),
    ("solvers/dps.py", "from evaluation.metrics import Metrics", "solvers may not know evaluation"),
    ("diffusion/grids.py", "from solvers import base", "diffusion may not know solvers"),
    ("evaluation/run.py", "from conf.command import Stop", "evaluation may not know conf"),
    ("evaluation/run.py", "import sample", "nothing imports a script"),
    ("solvers/dps.py", "from omegaconf import DictConfig", "omegaconf lives in"),
    ("solvers/dps.py", "if True:\n    from hydra.utils import instantiate", "hydra lives in"),
    ("evaluation/run.py", "import hydra", "hydra lives in"),
    ("solvers/base.py", "import wandb", "wandb lives in"),
    ("operators/base.py", "import pytorch_lightning as pl", "pytorch_lightning lives in"),
    ("diffusion/levels.py", "import pytorch_lightning as pl", "pytorch_lightning lives in"),
    ("evaluation/callbacks.py", "import lightning", "lightning lives in no file"),
    ("solvers/base.py", "def f(x):\n    return x.cuda()", "calls .cuda()"),
    ("operators/base.py", "from ..diffusion import levels", "operators may not know diffusion"),
]


@pytest.mark.parametrize(("path", "source", "told"), WRONG)
def test_a_wrong_import_would_be_caught(path, source, told):
    (line,) = violations(path, source)
    assert line.startswith(path)
    assert told in line


RIGHT = [
    ("sample.py", "import hydra\nfrom conf.command import command"),
    ("conf/build.py", "from omegaconf import DictConfig\nfrom evaluation.run import Restoration"),
    ("evaluation/callbacks.py", "import pytorch_lightning as pl\nimport wandb\nfrom solvers.base import Solver"),
    ("diffusion/training.py", "import pytorch_lightning as pl\nfrom diffusion.levels import NoiseLevel"),
    ("solvers/dps.py", "from solvers.base import Solver\nfrom operators.base import Operator\nfrom diffusion.levels import CLEAN"),
    ("operators/blur.py", "from .base import LinearOperator\nimport torch"),
]


@pytest.mark.parametrize(("path", "source"), RIGHT)
def test_a_right_import_is_let_through(path, source):
    assert violations(path, source) == []


def test_a_heavy_import_behind_a_light_one_would_be_caught():
    """conf.command is what the scripts share: torch there would slow every --help."""
    assert "torch" in loaded_by(
        "sample.py", "from conf import command", {"conf/command.py": "try:\n    import torch\nexcept ImportError: ..."}
    )
    assert "torch" in loaded_by("sample.py", "from conf.build import build")
    assert "torch" not in loaded_by("sample.py", "def main():\n    import torch")
