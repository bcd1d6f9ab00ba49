"""One name, `diffusion_priors`, in every way to have the project: checkout, checkout without links, editable install, wheel, sdist."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "diffusion_priors"
ROOMS = sorted(path.name for path in (ROOT / PACKAGE).iterdir() if path.is_symlink() and path.is_dir())
SCRIPTS = ("sample.py", "evaluate.py", "train.py")
LINKS = {**{name: f"../{name}" for name in (*ROOMS, *SCRIPTS)}, "examples/faces": "../../examples/faces"}
FILES = {
    f"{PACKAGE}/{path.relative_to(ROOT).as_posix()}"
    for link in LINKS
    for path in ([ROOT / link] if (ROOT / link).is_file() else (ROOT / link).rglob("*"))
    if path.is_file() and "__pycache__" not in path.parts
} | {f"{PACKAGE}/{name}" for name in ("__init__.py", "__main__.py", "py.typed")}
"""What an installed package holds: the scripts, the example faces, and every file of every room, whatever its kind."""
MODULES = sorted(file.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for file in FILES if file.endswith(".py"))

USE = f"""
import importlib, sys
from pathlib import Path

home = Path(sys.argv[1])
for name in {MODULES!r}:
    module = importlib.import_module(name)
    assert home in Path(module.__file__).resolve().parents, module.__file__

from hydra import compose, initialize_config_module
from hydra.utils import instantiate

with initialize_config_module("{PACKAGE}.conf", version_base="1.3"):
    config = compose("sample", overrides=["prior=faces64", "operator=inpaint_box", "solver=dps"])
for group in ("prior", "operator", "solver"):
    built = instantiate(config[group])
    assert type(built).__module__.startswith("{PACKAGE}."), type(built)
"""
"""Import every module from below the folder `home`; compose the configuration, and build from it by `_target_` and `${{project:…}}`."""
RESTORE = f"""
import json, subprocess
import {PACKAGE} as dp

command = [home / "bin" / "diffusion-priors", "sample", "output_dir=run", "grid.steps=2", "metrics.lpips=null", "trainer=cpu"]
subprocess.run(command, check=True)
record = json.loads(Path("run/records.jsonl").read_text())
result = dp.restore(image=dp.FACES[0], operator="inpaint_box", steps=2, trainer="cpu", progress=False)
assert result.records[0]["psnr"] == record["psnr"], (result.records, record)
assert "command: diffusion-priors sample output_dir=run" in Path("run/config.yaml").read_text()
"""
"""The installed command restores a bundled face, and so does the Python interface, with the same result."""
OWN = "for name in sys.argv[2:]:\n    assert importlib.import_module(name).OWNER == 'user', name\n"


def run(*command: str | Path, folder: Path, **environment: str) -> str:
    """The output of a command in `folder`, which must succeed. Of PYTHONPATH only what is given here holds."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=inherited | environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build_wheel(source: Path, folder: Path) -> Path:
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, source, folder=source.parent)
    (wheel,) = folder.glob("*.whl")
    return wheel


def contents(wheel: Path) -> list[str]:
    """The names of a wheel's files, without its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        return [name for name in archive.namelist() if ".dist-info/" not in name]


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A copy of the checkout: builds and installs leave files in it."""
    copy = tmp_path / "checkout"
    generated = shutil.ignore_patterns(".*", "__pycache__", "outputs", "multirun", "build", "dist", "*.egg-info")
    return shutil.copytree(ROOT, copy, symlinks=True, ignore=generated)


@pytest.fixture
def elsewhere(tmp_path) -> Path:
    """A user's folder. It has packages of its own that are called as the rooms are."""
    folder = tmp_path / "elsewhere"
    for room in ROOMS:
        (folder / room).mkdir(parents=True)
        (folder / room / "__init__.py").write_text("OWNER = 'user'\n")
    return folder


def replace_links(checkout: Path) -> None:
    """As git checks out symbolic links on Windows: text files that hold the path."""
    for name in LINKS:
        link = checkout / PACKAGE / name
        target = os.readlink(link)
        link.unlink()
        link.write_text(target)


def test_every_room_has_a_link():
    folders = {path.name for path in ROOT.iterdir() if (path / "__init__.py").is_file()} - {PACKAGE}
    assert set(ROOMS) == folders
    found = {path.relative_to(ROOT / PACKAGE).as_posix(): os.readlink(path) for path in (ROOT / PACKAGE).rglob("*") if path.is_symlink()}
    assert found == LINKS


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_a_checkout_works_from_any_folder(links, checkout, elsewhere):
    if not links:
        replace_links(checkout)
    for script in SCRIPTS:
        assert "operator" in run(sys.executable, checkout / script, "--help", folder=elsewhere)
    run(sys.executable, "-c", USE + OWN, checkout, *ROOMS, folder=elsewhere, PYTHONPATH=str(checkout))


def test_a_wheel_holds_every_file_under_one_name_and_its_licence(checkout, tmp_path):
    wheel = build_wheel(checkout, tmp_path / "dist")
    assert sorted(contents(wheel)) == sorted(FILES)
    with zipfile.ZipFile(wheel) as archive:
        texts = {Path(name).name: archive.read(name).decode() for name in archive.namelist() if ".dist-info/" in name}
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    fields = dict(line.split(": ", 1) for line in texts["METADATA"].split("\n\n")[0].splitlines() if ": " in line)
    assert fields["License-Expression"] == citation["license"] == "MIT" and texts["LICENSE"] == (ROOT / "LICENSE").read_text()
    assert fields["Version"] == citation["version"] and fields["Author"] == citation["authors"][0]["name"]


@pytest.fixture
def environment(tmp_path) -> Path:
    """A new environment. It takes the dependencies, and no installed `diffusion_priors`, from the present one."""
    root = tmp_path / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", root, folder=tmp_path)
    (packages,) = root.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return root


def install(environment: Path, *what: str | Path) -> Path:
    """Install with pip, without dependencies; → the environment's Python."""
    python = environment / "bin" / "python"
    options = ("install", "-q", "--no-deps", "--no-build-isolation")
    run(sys.executable, "-m", "pip", "--python", python, *options, *what, folder=environment)
    return python


def test_an_installed_wheel_works_among_folders_of_the_same_names(checkout, elsewhere, environment, tmp_path):
    python = install(environment, build_wheel(checkout, tmp_path / "dist"))
    (packages,) = environment.glob("lib/python*/site-packages")
    found = {path.name for path in packages.iterdir() if path.suffix not in (".dist-info", ".pth")}
    assert found == {PACKAGE} and (environment / "bin" / "diffusion-priors").is_file()
    shutil.rmtree(checkout)
    run(python, "-c", USE + RESTORE + OWN, environment, *ROOMS, folder=elsewhere)


def test_an_editable_install_works_among_folders_of_the_same_names(checkout, elsewhere, environment):
    run(install(environment, "-e", checkout), "-c", USE + OWN, checkout, *ROOMS, folder=elsewhere)


def test_an_sdist_holds_real_files_once_and_builds_the_same_wheel(checkout, tmp_path):
    (tmp_path / "dist").mkdir()
    build = f"from setuptools import build_meta; build_meta.build_sdist({str(tmp_path / 'dist')!r})"
    run(sys.executable, "-c", build, folder=checkout)
    (sdist,) = (tmp_path / "dist").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    assert all(member.isfile() or member.isdir() for member in members)
    files = Counter(member.name.split("/", 1)[1] for member in members if member.isfile())
    assert {name: count for name, count in files.items() if count > 1} == {}
    assert {name for name in files if name.startswith(f"{PACKAGE}/")} == FILES
    assert not {name.split("/")[0] for name in files} & {*ROOMS, "tests"}
    assert sorted(contents(build_wheel(sdist, tmp_path / "wheel"))) == sorted(FILES)
