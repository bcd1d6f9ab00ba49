"""images_per_call: an evaluation has the same bits for any batch size and number of processes."""

from __future__ import annotations

import pytest
from tiny_evaluation import COSTS, draw_images, evaluate

from diffusion_priors.runs.reading.records import read_records

pytestmark = pytest.mark.script

LINE = ["data.root=images", "grid.steps=100", "trainer.threads=1"]
SHARED = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]


def numbers(folder, name: str, *line: str) -> list[dict]:
    """The records of a run, without what differs between any two runs, and the bytes of its restorations."""
    evaluate(folder, *LINE, *line, f"output_dir={name}")
    records = [{key: value for key, value in record.items() if key not in COSTS} for record in read_records(folder / name)]
    files = {path.parent.name: path.read_bytes() for path in (folder / name / "images").glob("*/restoration-0.png")}
    return sorted((record | {"file": files[record["id"]]} for record in records), key=lambda record: record["id"])


@pytest.mark.slow
def test_batch_sizes_and_processes_change_no_bit(tmp_path):
    draw_images(tmp_path / "images", 5)
    for size in (1, 4):
        run = [f"images_per_call={size}"]
        one = numbers(tmp_path, f"{size}-one", *run, "batch_size=1")
        assert numbers(tmp_path, f"{size}-three", *run, "batch_size=3") == one
        assert numbers(tmp_path, f"{size}-four", *run, "batch_size=4") == one
        assert numbers(tmp_path, f"{size}-shared", *run, *SHARED, "batch_size=3") == one
    assert numbers(tmp_path, "one", "batch_size=1") != numbers(tmp_path, "three", "batch_size=3")


def test_a_group_of_no_images_is_refused(tmp_path):
    draw_images(tmp_path / "images", 1)
    done = evaluate(tmp_path, "data.root=images", "images_per_call=0", "output_dir=run", code=2)
    assert "images_per_call must be at least 1, got 0; set images_per_call" in done.stderr and not (tmp_path / "run").exists()
