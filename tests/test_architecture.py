"""The folders and the one direction of imports between them, read from every import in the repository."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "diffusion_priors"
MATH = {"solvers", "diffusion", "operators"}
EVALUATION = {"evaluation", *(f"evaluation/{room}" for room in ("restoration", "metrics", "reporting", "sweeps", "comparison", "exact"))}
BELOW = {
    "scripts": {"conf", "training", *EVALUATION, *MATH, "images", "runs"},
    "api": {"conf", "evaluation/restoration", "evaluation/metrics", "evaluation/reporting", *MATH, "images", "runs"},
    "conf": {"training", *EVALUATION, *MATH, "images", "runs"},
    "checkpoints": {"conf", "diffusion", "images", "runs"},
    "training": {"evaluation/restoration", "evaluation/metrics", "evaluation/reporting", *MATH, "images", "runs"},
    "evaluation/restoration": {"evaluation/metrics", "evaluation/reporting", "evaluation", *MATH, "images", "runs"},
    "evaluation/exact": {"evaluation/reporting", "evaluation", *MATH, "images", "runs"},
    "evaluation/sweeps": {"evaluation/reporting", "evaluation", "runs"},
    "evaluation/comparison": {"evaluation/reporting", "evaluation", "runs"},
    "evaluation/reporting": {"evaluation", "runs"},
    "evaluation/metrics": {"evaluation", "images", "runs"},
    "evaluation": {"runs"},
    "solvers": {"diffusion", "operators"},
    "diffusion": {"images", "runs"},
    "operators": {"images", "runs"},
    "images": {"runs"},
    "runs": set(),
}
"""Room → the rooms it may import besides itself. `evaluation` stands for the files directly in that folder."""
ROOMS = {room.split("/")[0] for room in BELOW} - {"scripts"}
SCRIPTS = {path.stem for path in ROOT.glob("*.py")}
FILES = sorted(path.relative_to(ROOT).as_posix() for room in ROOMS for path in (ROOT / room).rglob("*.py")) + sorted(
    path.name for path in ROOT.glob("*.py")
)
LIGHT = ("evaluation/reporting", "evaluation/sweeps", "evaluation/comparison")
"""Rooms that only read files: they load no torch."""

LIVES_IN = {
    "hydra": ("conf/", "scripts"),
    "omegaconf": ("conf/", "scripts"),
    "wandb": ("runs/",),
    "pytorch_lightning": ("training/", "evaluation/restoration/", "runs/"),
    "lightning": (),
}
"""Package → where it may be imported: beginnings of paths, or the scripts. Lightning is imported as pytorch_lightning."""
HEAVY = {"torch", "torchvision", "torchmetrics", "pytorch_lightning", "lightning", "lpips", "wandb", "diffusers"}

SLOW_TO_IMPORT = {"pytorch_lightning", "scipy.stats", "torchmetrics", "torchvision", "torch_fidelity", "lpips", "diffusers"}


def room_of(path: str) -> str:
    """The room of a path relative to the root: the longest one of BELOW that contains it."""
    folder = PurePosixPath(path).parent
    for candidate in (folder, *folder.parents):
        if candidate.as_posix() in BELOW:
            return candidate.as_posix()
    return "scripts"


def room_imported(name: str) -> str | None:
    """diffusion_priors.evaluation.metrics.lpips.LPIPS → evaluation/metrics; None for a name outside the project."""
    parts = name.split(".")
    if parts[0] != PACKAGE or len(parts) < 2 or parts[1] not in ROOMS:
        return None
    return max((room for room in BELOW if parts[1 : 1 + room.count("/") + 1] == room.split("/")), key=len)


def imported(nodes: Iterator[ast.AST], path: str) -> Iterator[str]:
    """The dotted names that import statements bring in: `from a import b` as a.b, relative ones completed from the file's folder."""
    folder = (PACKAGE, *PurePosixPath(path).parent.parts)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = folder[: len(folder) - node.level + 1] if node.level else ()
            base = ".".join((*above, *([node.module] if node.module else [])))
            yield from (f"{base}.{alias.name}" for alias in node.names)


def violations(path: str, source: str) -> list[str]:
    """What a file (its path relative to the root) does against the rules, one line each."""
    tree, room = ast.parse(source), room_of(path)
    found = []
    for name in imported(ast.walk(tree), path):
        first, other = name.split(".")[0], room_imported(name)
        if other is not None and other not in {room, *BELOW[room]}:
            found.append(f"{path} imports {name}: {room} may not import {other}")
        if first in ROOMS:
            found.append(f"{path} imports {name}: write {PACKAGE}.{name}")
        if first in SCRIPTS:
            found.append(f"{path} imports {name}: nothing imports a script")
        if first == "tests":
            found.append(f"{path} imports {name}: nothing imports a test")
        if first in LIVES_IN and not any(room == place or path.startswith(place) for place in LIVES_IN[first]):
            found.append(f"{path} imports {name}: {first} belongs in {' and '.join(LIVES_IN[first]) or 'no file'}")
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    return found + [
        f"{path}:{call.lineno} calls .cuda(): modules and buffers move themselves" for call in calls if call.func.attr == "cuda"
    ]


def only_for_types(node: ast.AST) -> bool:
    """if TYPE_CHECKING: …"""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    """Every statement that runs when the module is imported."""
    for child in node.orelse if only_for_types(node) else ast.iter_child_nodes(node):
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield child
            yield from outside_functions(child)


@cache
def imported_at_once(path: str, source: str) -> tuple[str, ...]:
    """The dotted names that importing a file imports."""
    return tuple(imported(outside_functions(ast.parse(source)), path))


def loaded_by(path: str, source: str, files: dict[str, str] | None = None) -> set[str]:
    """The packages outside the project, and their modules, that importing a file loads, directly or through modules of the project."""
    pending, seen, packages = [(path, source)], {path}, set()
    while pending:
        here, text = pending.pop()
        for name in imported_at_once(here, text):
            parts = name.split(".")
            if parts[0] != PACKAGE:
                packages |= {parts[0], ".".join(parts[:2])}
                parts = [PACKAGE, "tests", "support", parts[0]]  # where it is a module of tests/support
            for end in range(2, len(parts) + 1):
                for file in ("/".join(parts[1:end]) + ".py", "/".join(parts[1:end]) + "/__init__.py"):
                    known = files[file] if files and file in files else (ROOT / file).read_text() if (ROOT / file).is_file() else None
                    if known is not None and file not in seen:
                        seen.add(file)
                        pending.append((file, known))
    return packages


def test_every_room_is_seen():
    assert {room_of(path) for path in FILES} == set(BELOW)
    assert "sample.py" in FILES


def test_imports_run_one_way_and_packages_stay_in_their_rooms():
    assert [line for path in FILES for line in violations(path, (ROOT / path).read_text())] == []


def test_no_two_packages_import_each_other():
    def closure(room: str) -> set[str]:
        found: set[str] = set()
        pending = [room]
        while pending:
            fresh = BELOW[pending.pop()] - found
            found |= fresh
            pending += fresh
        return found

    assert [room for room in BELOW if room in closure(room)] == []


@pytest.mark.script
@pytest.mark.parametrize("path", [path for path in FILES if room_of(path) == "scripts"])
def test_scripts_import_nothing_heavy_before_main(path):
    """--help, TAB completion and sweep launchers answer at once."""
    assert loaded_by(path, (ROOT / path).read_text()) & HEAVY == set()
    name = Path(path).stem
    check = f"import sys, {name}; heavy = {HEAVY!r} & set(sys.modules); assert not heavy, heavy"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.script
def test_rooms_that_only_read_files_load_no_torch():
    """Reports, leaderboards and comparisons open in a process that never loads torch."""
    modules = [f"{PACKAGE}.{path[:-3].replace('/', '.')}" for path in FILES if room_of(path) in LIGHT and not path.endswith("__init__.py")]
    check = f"import sys, {', '.join(modules)}; heavy = {HEAVY!r} & set(sys.modules); assert not heavy, heavy"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


TESTS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py"))


def test_collecting_tests_imports_nothing_slow():
    """A folder is collected in two seconds, 1.5 of them for torch. A test imports slower packages inside a fixture or a function."""
    assert {path: slow for path in TESTS if (slow := loaded_by(path, (ROOT / path).read_text()) & SLOW_TO_IMPORT)} == {}


def test_a_solver_fits_on_one_screen():
    solvers = [path for path in FILES if room_of(path) == "solvers" and not path.endswith(("base.py", "__init__.py"))]
    assert {path: lines for path in solvers if (lines := len((ROOT / path).read_text().splitlines())) > 75} == {}


def test_a_file_is_one_idea_and_a_folder_holds_at_most_fifteen():
    """A file of more than 250 lines, or a folder of more than 15 files, needs rooms of its own. One file per method does not count."""
    assert {path: lines for path in FILES if (lines := len((ROOT / path).read_text().splitlines())) > 260} == {}
    folders = [PurePosixPath(path).parent.as_posix() for path in FILES if not path.endswith("__init__.py")]
    assert {folder: count for folder in set(folders) - {"solvers", "operators", "."} if (count := folders.count(folder)) > 15} == {}


WRONG = [
    ("diffusion/priors/base.py", "from diffusion_priors.operators.base import Operator", "diffusion may not import operators"),
    ("diffusion/networks/unet.py", "def f():\n    import diffusion_priors.operators.blur", "diffusion may not import operators"),
    ("operators/blur.py", "import diffusion_priors.diffusion.levels as levels", "operators may not import diffusion"),
    ("operators/blur.py", "from diffusion_priors.diffusion import levels", "operators may not import diffusion"),
    ("operators/blur.py", "from operators.base import Operator", "write diffusion_priors.operators"),
    ("solvers/dps.py", "from diffusion_priors.evaluation.metrics.per_image import Metrics", "solvers may not import evaluation/metrics"),
    ("diffusion/grids.py", "from diffusion_priors.solvers import base", "diffusion may not import solvers"),
    ("evaluation/restoration/run.py", "from diffusion_priors.conf.command import Stop", "may not import conf"),
    ("evaluation/restoration/run.py", "from diffusion_priors.training.run import Training", "may not import training"),
    ("evaluation/reporting/figure.py", "from diffusion_priors.images.io import to_image", "evaluation/reporting may not import images"),
    ("evaluation/sweeps/plots.py", "from diffusion_priors.evaluation.metrics.lpips import LPIPS", "may not import evaluation/metrics"),
    (
        "evaluation/statistics.py",
        "from diffusion_priors.evaluation.reporting import figure",
        "evaluation may not import evaluation/reporting",
    ),
    ("evaluation/restoration/run.py", "import sample", "nothing imports a script"),
    ("conf/named.py", "from diffusion_priors.api.parts import solver", "conf may not import api"),
    ("api/parts.py", "from hydra.utils import instantiate", "hydra belongs in"),
    ("solvers/dps.py", "from omegaconf import DictConfig", "omegaconf belongs in"),
    ("solvers/dps.py", "if True:\n    from hydra.utils import instantiate", "hydra belongs in"),
    ("evaluation/restoration/run.py", "import hydra", "hydra belongs in"),
    ("solvers/base.py", "import wandb", "wandb belongs in"),
    ("operators/base.py", "import pytorch_lightning as pl", "pytorch_lightning belongs in"),
    ("diffusion/levels.py", "import pytorch_lightning as pl", "pytorch_lightning belongs in"),
    ("evaluation/restoration/callbacks.py", "import lightning", "lightning belongs in no file"),
    ("solvers/base.py", "def f(x):\n    return x.cuda()", "calls .cuda()"),
    ("operators/base.py", "from ..diffusion import levels", "operators may not import diffusion"),
]


@pytest.mark.parametrize(("path", "source", "message"), WRONG)
def test_a_wrong_import_would_be_caught(path, source, message):
    (line,) = violations(path, source)
    assert line.startswith(path)
    assert message in line


RIGHT = [
    ("sample.py", "import hydra\nfrom diffusion_priors.conf.command import command"),
    ("conf/build.py", "from omegaconf import DictConfig\nfrom diffusion_priors.evaluation.restoration.run import Evaluation"),
    ("evaluation/restoration/callbacks.py", "import pytorch_lightning as pl\nfrom diffusion_priors.solvers.base import Solver"),
    ("runs/loggers.py", "import wandb"),
    ("training/module.py", "import pytorch_lightning as pl\nfrom diffusion_priors.diffusion.levels import NoiseLevel"),
    ("training/validation.py", "from diffusion_priors.evaluation.restoration.module import RestorationModule"),
    ("solvers/dps.py", "from diffusion_priors.solvers.base import Solver\nfrom diffusion_priors.operators.base import Operator"),
    ("operators/blur.py", "from .base import LinearOperator\nimport torch"),
]


@pytest.mark.parametrize(("path", "source"), RIGHT)
def test_a_right_import_is_accepted(path, source):
    assert violations(path, source) == []


def test_a_heavy_import_behind_a_light_one_would_be_caught():
    """conf.command is what the scripts share: torch there would slow every --help."""
    hidden = {"conf/command.py": "try:\n    import torch\nexcept ImportError: ..."}
    assert "torch" in loaded_by("sample.py", "from diffusion_priors.conf import command", hidden)
    assert "torch" in loaded_by("sample.py", "from diffusion_priors.conf.build import build")
    assert "torch" not in loaded_by("sample.py", "def main():\n    import torch")


def test_a_slow_import_of_a_test_would_be_caught():
    path, lightning = "tests/test_new.py", "from diffusion_priors.evaluation.restoration.module import RestorationModule"
    assert loaded_by(path, lightning) & SLOW_TO_IMPORT == {"pytorch_lightning"}
    assert loaded_by(path, "import own_callbacks") & SLOW_TO_IMPORT == {"pytorch_lightning"}
    for slow in ("from scipy import stats", "import scipy.stats", "from scipy.stats import norm"):
        assert loaded_by(path, slow) & SLOW_TO_IMPORT == {"scipy.stats"}, slow
    assert loaded_by(path, f"if TYPE_CHECKING:\n    {lightning}") & SLOW_TO_IMPORT == set()
    assert loaded_by(path, f"if TYPE_CHECKING:\n    pass\nelse:\n    {lightning}") & SLOW_TO_IMPORT == {"pytorch_lightning"}
