"""The dashboards of evaluate.py as a user gets them: the offline files of wandb against the files in the folder."""

from __future__ import annotations

import hashlib
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import wandb_file
import yaml
from forks import Run
from PIL import Image

pytestmark = pytest.mark.script

NETWORK = "prior.network._target_=broken_networks.NaNForBright"
CHEAP = ["prior=custom", NETWORK, "prior.checkpoint=null", "prior.size=[16,16]", "grid.steps=2", "metrics.lpips=null", "data.root=images"]
ROWS = 5


def evaluate(folder: Path, *overrides: str, code: int = 0) -> subprocess.CompletedProcess:
    own = {"HOME": str(folder / "home"), "WANDB_SILENT": "true"}
    done = Run(folder, *overrides, *CHEAP, environment=own).wait(500)
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    return done


def draw(folder: Path) -> None:
    """Four images, a to d."""
    generator = np.random.default_rng(0)
    (folder / "images").mkdir()
    for name in "abcd":
        small = Image.fromarray(generator.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        small.resize((16, 16), Image.Resampling.BICUBIC).save(folder / "images" / f"{name}.png")


@dataclass
class Job:
    folder: Path

    @property
    def runs(self) -> list[Path]:
        """wandb's files, oldest first."""
        found = sorted(self.folder.glob("wandb/offline-run-*/*.wandb"))
        return [wandb_file.finished(path) for path in found]

    @property
    def records(self) -> list[dict]:
        return [json.loads(line) for line in (self.folder / "records.jsonl").read_text().splitlines()]

    @property
    def summary(self) -> dict:
        return json.loads((self.folder / "summary.json").read_text())

    @property
    def endings(self) -> list[dict]:
        return [json.loads(line) for line in (self.folder / "endings.jsonl").read_text().splitlines()]

    def table(self) -> list[dict]:
        """The rows of the table that the last run shows; of images their description."""
        shown, kept = wandb_file.summary(self.runs[-1]), wandb_file.artifacts(self.runs[-1])["run_table"]
        assert shown["images._type"] == "table-file" and shown["images.nrows"] == len(self.records[:ROWS])
        assert shown["images._latest_artifact_path"].endswith("/images.table.json")
        content = json.loads(kept["images.table.json"].read_text())
        return [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> tuple[Job, Job]:
    """A sweep in one process with a good job and one whose restorations fail, stopped in the middle, then resumed."""
    folder = tmp_path_factory.mktemp("swept")
    draw(folder)
    sweep = ["-m", "+prior.network.above=9.0,0.02", "output_dir=deep/sweep", "num_samples=2", "batch_size=3"]
    shown = ["logger=wandb", "logger.project=tests", f"logger.rows={ROWS}", "logger.artifacts=true"]
    ending = "+callbacks.ending._target_=own_callbacks.Ending"
    stop = ["+callbacks.stop._target_=own_callbacks.Stopping", "+callbacks.stop.batches=4"]
    evaluate(folder, *sweep, *shown, ending, *stop, code=143)
    good, bad = (Job(next(folder.glob(f"deep/sweep/*above={above}*"))) for above in ("9.0", "0.02"))
    assert [wandb_file.exit_code(job.runs[0]) for job in (good, bad)] == [0, 143]
    assert good.summary["failed"] == 0 and not (bad.folder / "summary.json").exists()
    evaluate(folder, *sweep, *shown, ending, code=1)
    assert 0 < bad.summary["failed"] < bad.summary["records"] == 8
    return good, bad


def test_a_job_is_a_run_with_its_own_folder_in_the_group_of_the_sweep(swept):
    for job in swept:
        run = wandb_file.run(job.runs[0])
        assert (run.project, run.run_group, run.display_name) == ("tests", "sweep", job.folder.name)
    assert len({wandb_file.run(job.runs[0]).run_id for job in swept}) == 2


def test_a_finished_job_makes_no_second_run_and_a_resumed_one_keeps_its_id(swept):
    good, bad = swept
    assert len(good.runs) == 1 and len(bad.runs) == 2
    assert len({wandb_file.run(path).run_id for path in bad.runs}) == 1


def test_the_exit_code_of_the_run_is_that_of_the_process(swept):
    """143 after SIGTERM, 1 where restorations failed, 0 otherwise."""
    assert [[wandb_file.exit_code(path) for path in job.runs] for job in swept] == [[0], [143, 1]]


def test_the_configuration_is_plain_values(swept):
    for job in swept:
        config = yaml.safe_load((job.folder / "config.yaml").read_text())["config"]
        logged = wandb_file.config(job.runs[-1])
        assert {key: logged[key] for key in config} == config | {"callbacks": logged["callbacks"]}
        assert logged["choices"]["solver"] == "dps" and not any(group.startswith("hydra") for group in logged["choices"])
    assert wandb_file.config(swept[0].runs[0])["prior"]["network"]["above"] == 9.0


def test_running_means_continue_where_the_run_stopped(swept):
    for job, steps in zip(swept, ([[3, 6, 8]], [[3], [6, 8]]), strict=True):
        records = job.records
        for path, expected in zip(job.runs, steps, strict=True):
            rows = [row for row in wandb_file.history(path) if any(key.startswith("running/") for key in row)]
            assert [row["trainer/global_step"] for row in rows] == expected
            for row in rows:
                for name in ("psnr", "ssim", "residual"):
                    values = [r[name] for r in records[: row["trainer/global_step"]] if r[name] is not None]
                    assert row.get(f"running/{name}") == (pytest.approx(np.mean(values)) if values else None)


def test_the_summary_of_the_run_is_summary_json(swept):
    for job in swept:
        shown, summary = wandb_file.summary(job.runs[-1]), job.summary
        for group, values in (summary["statistics"] | {"cost": summary["cost"]}).items():
            for name, value in values.items():
                mean = value["mean"] if isinstance(value, dict) else value
                assert shown.get(f"{group}/{name}") == (mean if mean is None else pytest.approx(mean)), (group, name)
        assert shown["single/psnr"] == pytest.approx(np.mean(list(means(job.records))))
        assert shown["single/psnr_se"] == pytest.approx(summary["statistics"]["single"]["psnr"]["se"]) and "posterior_mean/psnr" in shown
        assert (shown["count/failed"], shown["count/records"], shown["count/images"]) == (summary["failed"], 8, 4)
        assert shown["figure.sha256"] == digest(job.folder / "figure.png")


def means(records: list[dict]):
    """The mean PSNR of each image that has one."""
    for name in "abcd":
        values = [r["psnr"] for r in records if r["id"] == name and r["psnr"] is not None]
        if values:
            yield np.mean(values)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_table_holds_the_first_records_and_their_images(swept):
    for job in swept:
        rows = job.table()
        assert len(rows) == ROWS < len(job.records)
        for row, record in zip(rows, job.records, strict=False):
            values = {key: value for key, value in record.items() if key not in ("error", "info", "hashes")}
            assert {key: row[key] for key in values} == values and row["failure"] == record["error"]
            folder = job.folder / "images" / record["id"]
            files = {"truth": "truth", "measurement": "measurement", "restoration": f"restoration-{record['sample']}"}
            for column, file in files.items():
                path = folder / f"{file}.png"
                assert (row[column] and row[column]["sha256"]) == (digest(path) if path.exists() else None)
            assert (row["restoration"] is None) == (row["error"] is None) == (record["error"] is not None)
    assert any(row["failure"] for row in swept[1].table()) and not any(row["failure"] for row in swept[0].table())


def test_the_error_image_is_that_of_its_row(swept):
    job = swept[0]
    kept = wandb_file.artifacts(job.runs[-1])["run_table"]
    for row in job.table():
        folder = job.folder / "images" / row["id"]
        truth, restoration = (pixels(folder / f"{name}.png") for name in ("truth", f"restoration-{row['sample']}"))
        error = np.abs(truth - restoration).mean(2)
        seen = pixels(kept[row["error"]["path"]])
        assert np.abs(seen - np.minimum(4 * error, 255)).max() <= 1 and seen.std() > 0


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path), dtype=np.float64)


def test_the_artifact_holds_the_files(swept):
    for job in swept:
        kept = wandb_file.artifacts(job.runs[-1])["evaluation"]
        assert set(kept) == {"records.jsonl", "summary.json", "config.yaml", "figure.png"}
        for name in ("records.jsonl", "config.yaml", "figure.png"):
            assert digest(kept[name]) == digest(job.folder / name)
        assert json.loads(kept["summary.json"].read_text()) == job.summary


def test_files_to_be_sent_wait_in_the_folder_of_the_run(swept):
    for job in swept:
        for files in wandb_file.artifacts(job.runs[-1]).values():
            assert all(path.is_relative_to(job.folder) for path in files.values())
    assert not (swept[0].folder.parent.parent.parent / "home" / ".local").exists()


def test_own_callbacks_get_all_results_once_before_the_run_is_marked_as_finished(swept):
    for job in swept:
        (ending,) = job.endings
        assert ending["records"] == job.records and ending["summary"] == job.summary
        assert ending["loggers"] == ["WandbLogger"] and not ending["done"]


def test_processes_that_share_a_run_log_it_once(tmp_path):
    draw(tmp_path)
    shared = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "batch_size=1"]
    evaluate(tmp_path, *shared, "logger=wandb", f"logger.rows={ROWS}", "output_dir=out")
    job = Job(tmp_path / "out")
    assert len(job.runs) == 1 and wandb_file.exit_code(job.runs[0]) == 0
    run = wandb_file.run(job.runs[0])
    assert (run.run_group, run.display_name, run.project) == ("", "out", "diffusion-priors")
    assert [(row["id"], row["psnr"]) for row in job.table()] == [(record["id"], record["psnr"]) for record in job.records]
    assert [record["id"] for record in job.records] == list("abcd")
    assert wandb_file.summary(job.runs[0])["single/psnr"] == pytest.approx(job.summary["statistics"]["single"]["psnr"]["mean"])
    assert list(wandb_file.artifacts(job.runs[0])) == ["run_table"]
