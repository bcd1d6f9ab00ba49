"""The code of docs/python.md and of README.md's Python section, and the notebook, as they are written, in few steps."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from documentation import ROOT, fenced
from PIL import Image

pytestmark = pytest.mark.slow  # a dozen restorations of each
PAGE = "docs/python.md"
NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that the page takes for granted, as the current folder; a grid by name has two steps."""
    face = Image.open(ROOT / "examples" / "faces" / "face-1.png").convert("RGB")
    face.resize((90, 70)).save(tmp_path / "photo.jpg")
    face.resize((64, 64)).save(tmp_path / "damaged.png")
    Image.fromarray(np.kron([[0, 255], [255, 255]], np.ones((32, 32))).astype(np.uint8)).save(tmp_path / "mask.png")
    monkeypatch.setattr("diffusion_priors.api.restore.STEPS", 2)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shorter(code: str) -> str:
    return re.sub(r"steps=\d+", "steps=2", code)


def run(blocks: list[str]) -> dict:
    """Run code blocks one after the other in one namespace, as a reader does."""
    names: dict = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"block {number}", "exec"), names)
    return names


def test_the_code_of_the_page_runs(folder, capsys):
    blocks = [shorter(block) for block in fenced(PAGE, "python") if "deepinv" not in block]
    assert len(blocks) >= 8
    names = run(blocks)
    assert (folder / "restored.png").is_file() and (folder / "outputs" / "python" / "records.jsonl").is_file()
    assert names["result"].samples.shape == (1, 2, 3, 64, 64) and names["other"].size == (32, 32)
    assert "'dps'" in capsys.readouterr().out


def test_the_three_lines_of_the_readme_run(folder):
    (block,) = [block for block in fenced("README.md", "python") if "import diffusion_priors" in block]
    assert run([block])["result"].records[0]["error"] is None


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_the_code_about_deepinverse_runs(folder):
    pytest.importorskip("deepinv")
    (block,) = [block for block in fenced(PAGE, "python") if "deepinv" in block]
    names = run(["import torch, diffusion_priors as dp", block])
    assert names["restored"].isfinite().all() and names["result"].records[0]["error"] is None


def test_the_notebook_runs(folder):
    """Every code cell, in two steps; the outputs that it is kept with show figures and no error."""
    cells = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    names = run([shorter("".join(cell["source"])) for cell in cells])
    assert names["record"]["error"] is None
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 4
    assert not any(output["output_type"] == "error" for output in outputs)
