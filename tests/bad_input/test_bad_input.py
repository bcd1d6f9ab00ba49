"""The table of bad inputs: every row is run through its script as a user would. The rows are in the other files of this folder."""

from __future__ import annotations

import importlib.util
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from bad_input import Bad, assert_refused, write_images
from tiny_evaluation import evaluate


def rows_of(path: Path) -> list[Bad]:
    spec = importlib.util.spec_from_file_location(f"bad_input_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ROWS


FILES = sorted(path for path in Path(__file__).parent.glob("*.py") if not path.name.startswith("test_"))
TABLE = [row for path in FILES for row in rows_of(path)]


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The finished run of a row with run=True; made when a row first asks for it."""

    @cache
    def make() -> Path:
        folder = tmp_path_factory.mktemp("finished")
        write_images(folder)
        evaluate(folder, "data.root=images", "num_samples=2", "output_dir=run")
        return folder / "run"

    return make


@pytest.mark.script
@pytest.mark.parametrize("row", TABLE, ids=[f"{row.script}: {row.what}" for row in TABLE])
def test_bad_input_is_refused_in_one_line(row, tmp_path, finished):
    assert_refused(row, tmp_path, finished)


def test_every_row_has_its_own_name():
    names = Counter((row.script, row.what) for row in TABLE)
    assert len(TABLE) > 100 and names.most_common(1)[0][1] == 1
