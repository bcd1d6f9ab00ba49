"""Runs the commands of README.md, and the listings of README.md and CONTRIBUTING.md in a copy of the project."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from documentation import ROOT, commands, draw_faces, listings, run_all, write_scans, write_user_package
from PIL import Image

NOT_RUN = {
    "pip install -e .": "tests/test_namespace.py installs the project",
    "pip install -e '.[test]'": "it downloads packages; .ci/run runs it",
    "--index-url https://download.pytorch.org/whl/cpu": "it downloads packages",
    "-m pytest": "these are the tests; .ci/run runs it",
    "prior.checkpoint.path=ffhq_10m.pt": "the checkpoint has to be downloaded by hand",
    "prior.checkpoint.url=URL": "it downloads the checkpoint",
    "operator=deepinv": "DeepInverse may be missing; tests/operators/test_deepinverse.py uses it where it is installed",
}
"""Commands of README.md that no test runs, by words that only they have, and why."""

IN_A_COPY = {
    "python sample.py solver=my_solver",
    "python sample.py operator=grey",
    "python sample.py operator=custom operator.function._target_=my_camera.exposed +operator.function.gain=3.0",
    "python sample.py operator=custom_linear operator.function._target_=my_camera.shaken solver=diffpir",
}
"""Commands that need the listings of the page."""

SHORT = ["grid.steps=2", "metrics.lpips=null", "trainer.accelerator=cpu"]
SHORT_TRAINING = [
    *("steps=1", "batch_size=2", "data.holdout=1", "data.cache=cache", "trainer.accelerator=cpu"),
    *("validation.denoise=1", "validation.samples=0", "validation.restore=0"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files and folders that README.md takes for granted."""
    import torch

    draw_faces(tmp_path, 64, "FOLDER", "RESTORED", "folder")
    write_user_package(tmp_path)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    (tmp_path / "docs" / "images").mkdir(parents=True)
    Image.open(ROOT / "examples" / "faces" / "face-1.png").convert("RGB").save(tmp_path / "photo.jpg")
    Image.open(ROOT / "examples" / "faces" / "face-1.png").save(tmp_path / "damaged.png")
    Image.fromarray(np.kron([[0, 255], [255, 255]], np.ones((32, 32))).astype(np.uint8)).save(tmp_path / "mask.png")
    write_scans(tmp_path, 64)
    torch.save({"gain": torch.ones(64)}, tmp_path / "weights.pt")
    return tmp_path


def extra(command: str) -> list[str]:
    """What makes a command short."""
    if "gallery.py" in command:
        return []
    if "train.py" in command:
        tiny = [] if "prior=" in command else ["network.num_channels=8", "network.channel_mult=[1,2]", "network.num_head_channels=8"]
        return [*SHORT_TRAINING, *tiny]
    # two runs of sample.py may start within one second
    return [*SHORT, *(["overwrite=true"] if "sample.py" in command else [])]


def runs_elsewhere(command: str) -> bool:
    """Whether the test of a page of docs/ runs the same evaluation."""
    pages = [f"docs/{name}.md" for name in ("evaluation", "sweeps", "exact_posterior")]
    return "evaluate.py" in command and any(command in commands(page) for page in pages)


@pytest.mark.script
@pytest.mark.slow
def test_every_command_of_the_readme_runs(folder):
    found = commands("README.md")
    left_out = [command for command in found if any(command.endswith(words) or f"{words} " in command for words in NOT_RUN)]
    assert len(left_out) == len(NOT_RUN) and set(found) >= IN_A_COPY
    chosen = [command for command in found if not (command in left_out or command in IN_A_COPY or runs_elsewhere(command))]
    assert len(chosen) >= 12
    run_all(chosen, folder, extra)
    assert (folder / "docs" / "images" / "gallery.png").is_file()
    assert (folder / "outputs" / "train" / "prior" / "card.yaml").is_file()


PAGES = ("README.md", "CONTRIBUTING.md")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the listings of both pages pasted into new files."""
    root = tmp_path_factory.mktemp("copy") / "project"
    ignored = shutil.ignore_patterns(".git", "outputs", "multirun", "__pycache__", ".*_cache", ".venv", "build", "*.egg-info")
    shutil.copytree(ROOT, root, symlinks=True, ignore=ignored)
    for page in PAGES:
        for path, content in listings(page).items():
            assert not (root / path).exists(), f"{page} has a listing for {path}, which exists"
            (root / path).write_text(content)
    return root


def added(command: str) -> bool:
    """Whether a command of CONTRIBUTING.md is about one of the listings."""
    return any(name in command for name in ("projected", "every_second", "shrinking"))


def run_in_copy(command: str, copy: Path, *extra: str) -> subprocess.CompletedProcess:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HYDRA", "WANDB", "PYTHONPATH", "PYTEST"))}
    words = [sys.executable, *shlex.split(command)[1:], *extra]
    return subprocess.run(
        words, cwd=copy, env=environment | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600, check=False
    )


@pytest.mark.slow
def test_the_listings_of_both_pages_run(copy):
    """As they are pasted. Each `sample.py` command leaves a finite restoration, and the tests find the new files."""
    chosen = [*sorted(IN_A_COPY), *filter(added, commands("CONTRIBUTING.md"))]
    assert len(chosen) >= 8
    for number, command in enumerate(chosen):
        short = [] if "pytest" in command else ["grid.steps=3", "metrics.lpips=null", "trainer.accelerator=cpu"]
        if "sample.py" in command:
            short.append(f"output_dir=outputs/{number}")
        if "experiment=exact_posterior" in command:
            short.append("hydra.sweeper.params.exact_problem=two_modes")
        done = run_in_copy(command, copy, *short)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        if "sample.py" in command:
            assert '"error": null' in (copy / "outputs" / str(number) / "records.jsonl").read_text(), command
        if "pytest" in command:
            assert re.search(r"\d+ passed", done.stdout), f"{command}\n{done.stdout}"


@pytest.mark.script
def test_the_configurations_of_the_listings_match_their_signatures(copy):
    """The yaml shows every argument with its default."""
    done = run_in_copy(
        "python -m pytest -q tests/test_configs.py -k 'my_solver or grey or projected or every_second or shrinking or signature'", copy
    )
    assert done.returncode == 0, done.stdout


def test_listings_are_formatted_and_name_an_importable_class():
    found = {path: content for page in PAGES for path, content in listings(page).items()}
    targets = [yaml.safe_load(content)["_target_"] for path, content in found.items() if path.endswith(".yaml")]
    assert len(targets) == 5
    for target in targets:
        module, _, name = target.removeprefix("diffusion_priors.").rpartition(".")
        assert re.search(rf"^(class|def) {name}\b", found[f"{module.replace('.', '/')}.py"], re.MULTILINE), target


def options(group: str) -> set[str]:
    """The options of a group in the table; those of a folder stand in docs/published_settings.md."""
    return {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")}


NOT_LISTED = {"prior": {"new"}}
"""Options that `sample.py` and `evaluate.py` refuse."""


def test_the_table_of_groups_names_the_options_that_exist():
    """All of them, and no others. Words in parentheses are about an option."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").split("| group | options |")[1].split("\n\n")[0]
    rows = dict(re.findall(r"^\| `([\w/]+)` \| (.*) \|$", text, re.MULTILINE))
    assert {"solver", "operator", "sampler", "noise_model", "prior", "grid"} <= set(rows)
    for group, row in rows.items():
        while "(" in row:
            row = re.sub(r"\([^()]*\)", "", row)
        assert set(re.findall(r"`(\w+)`", row)) == options(group) - NOT_LISTED.get(group, set()), group


@pytest.mark.parametrize(("heading", "group"), [("| solver | method |", "solver"), ("| operator | what it measures |", "operator")])
def test_the_tables_of_methods_and_operators_have_every_option_once(heading, group):
    table = (ROOT / "README.md").read_text(encoding="utf-8").split(heading)[1].split("\n\n")[0]
    named = [name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(named) == sorted(options(group))


def test_the_rooms_of_both_pages_are_the_folders_of_the_project():
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        named = set(re.findall(r"`(\w+)/", "".join(re.findall(r"^\| `.*", text, re.MULTILINE))))
        packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"diffusion_priors"}
        assert packages <= named, page


def test_links_between_pages_lead_to_a_file_and_a_heading():
    pages = [*PAGES, *(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").glob("*.md")))]
    for page in [*pages, "diffusion/weights/faces64/README.md"]:
        for link in re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text(encoding="utf-8")):
            if not link.startswith("http"):
                name, _, heading = link.partition("#")
                target = (ROOT / page).parent / name if name else ROOT / page
                assert target.exists(), f"{page}: {link}"
                assert not heading or heading in anchors(target), f"{page}: {link}"


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub writes them in links."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
