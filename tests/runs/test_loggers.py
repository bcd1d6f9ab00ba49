"""Dashboards: what is logged, the files they leave, and how the end of a run reaches them."""

from __future__ import annotations

import csv
import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import hydra
import numpy as np
import pytest
from lazy import Lazy
from omegaconf import OmegaConf
from PIL import Image

from diffusion_priors.conf import PROJECT
from diffusion_priors.conf.provenance import source_state
from diffusion_priors.runs.image_table import image_rows
from diffusion_priors.runs.reading.records import read_records

wandb = Lazy("wandb")
wandb_file = Lazy("wandb_file")
lightning_loggers = Lazy("pytorch_lightning.loggers")
build = Lazy("diffusion_priors.conf.build")
checks = Lazy("diffusion_priors.conf.checks")
settings = Lazy("diffusion_priors.conf.settings")
restoration = Lazy("diffusion_priors.evaluation.restoration.callbacks")
dashboards = Lazy("diffusion_priors.runs.loggers")
weights_and_biases = Lazy("diffusion_priors.runs.weights_and_biases")
own = Lazy("own_callbacks")
recording = Lazy("recording_dashboard")

WANDB_LOGGER = "diffusion_priors.runs.weights_and_biases.WandbLogger"

ESTIMATE = {"mean": 12.5, "se": 0.5, "low": 11.0, "high": 14.0, "n": 3}
SUMMARY = {
    "images": 3,
    "records": 3,
    "failed": 1,
    "sigma_y": None,
    "statistics": {"single": {"psnr": ESTIMATE, "lpips": None}, "posterior_mean": {"psnr": ESTIMATE | {"se": None}}},
    "cost": {"nfe_forward": 4.0, "seconds": ESTIMATE, "peak_memory_mib": None},
    "distribution": {"fid": 30.0},
}
VALUES = {
    "count/images": 3,
    "count/records": 3,
    "count/failed": 1,
    "single/psnr": 12.5,
    "single/psnr_se": 0.5,
    "posterior_mean/psnr": 12.5,
    "cost/nfe_forward": 4.0,
    "cost/seconds": 12.5,
    "cost/seconds_se": 0.5,
    "distribution/fid": 30.0,
}


@pytest.fixture
def keyless(monkeypatch, tmp_path):
    """A home without a key, and an environment without settings of wandb."""
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL", "WANDB_MODE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    return tmp_path


def record(name: str, sample: int = 0, psnr: float | None = 10.0, error: str | None = None) -> dict:
    unknown = dict.fromkeys(("nfe_forward", "nfe_vjp", "seconds", "sigma_y", "measurement_hash", "peak_memory_mib"))
    return {"id": name, "sample": sample, "seed": 0, "psnr": psnr, "residual": 0.5, "error": error} | unknown


def paint(path: Path, value: int | np.ndarray, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (4, 5, 3) if mode == "RGB" else (4, 5)
    Image.fromarray(np.broadcast_to(np.asarray(value, dtype=np.uint8), shape).copy()).save(path)


def test_only_values_that_exist_are_published():
    assert dashboards.summary_values(SUMMARY) == VALUES
    without = {key: value for key, value in SUMMARY.items() if key != "distribution"}
    assert dashboards.summary_values(without) == {key: value for key, value in VALUES.items() if key != "distribution/fid"}


def test_a_key_is_found_where_wandb_looks_for_it(keyless, monkeypatch):
    assert not weights_and_biases.has_key()
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert weights_and_biases.has_key()
    monkeypatch.delenv("WANDB_API_KEY")
    (keyless / "home").mkdir(exist_ok=True)
    (keyless / "home" / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password secret\n")
    (keyless / "home" / ".netrc").chmod(0o600)
    assert weights_and_biases.has_key()


def test_a_key_for_an_own_server_counts_and_one_for_another_server_does_not(keyless, monkeypatch):
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org:8080")
    (keyless / "home").mkdir(exist_ok=True)
    for machine, counts in (("api.wandb.ai", False), ("wandb.example.org:8080", True)):
        (keyless / "home" / ".netrc").write_text(f"machine {machine}\n  login user\n  password secret\n")
        (keyless / "home" / ".netrc").chmod(0o600)
        assert weights_and_biases.has_key() is counts


@pytest.mark.parametrize(
    ("mode", "key", "word", "offline"),
    [
        ("auto", None, None, True),
        ("auto", "k" * 40, None, False),
        ("auto", None, "disabled", False),  # then W&B does as its own variable says
        ("offline", "k" * 40, None, True),
        ("online", None, None, False),
    ],
)
def test_auto_is_online_with_a_key(keyless, monkeypatch, mode, key, word, offline):
    made = []
    monkeypatch.setattr(WANDB_LOGGER, lambda **settings: made.append(settings) or SimpleNamespace(experiment=None))
    for name, value in (("WANDB_API_KEY", key), ("WANDB_MODE", word)):
        if value is not None:
            monkeypatch.setenv(name, value)
    weights_and_biases.Wandb(mode=mode)(keyless / "run", {})
    assert made[0]["offline"] is offline


def test_a_run_has_the_id_of_its_folder_until_it_starts_over(keyless, monkeypatch):
    ids = []
    monkeypatch.setattr(WANDB_LOGGER, lambda **settings: ids.append(settings["id"]) or SimpleNamespace(experiment=None))
    for folder, restart in (("a", False), ("a", False), ("b", False), ("a", True), ("a", False)):
        weights_and_biases.Wandb()(keyless / folder, {}, restart)
    first, again, other, restarted, after = ids
    assert first == again and restarted == after and len({first, other, restarted}) == 3


def test_no_connection_is_one_clear_line(keyless, monkeypatch):
    def refuse(**settings):
        raise wandb.errors.CommError("no route to host")

    monkeypatch.setattr("wandb.init", refuse)
    with pytest.raises(ValueError, match=r"no route to host; logger\.mode=offline"):
        weights_and_biases.Wandb(mode="online")(keyless / "run", {})


def test_rows_cannot_be_negative():
    with pytest.raises(ValueError, match=r"logger\.rows"):
        weights_and_biases.Wandb(rows=-1)


def run_file(folder: Path) -> Path:
    """The file of the only run in a folder, once the run is closed."""
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    return wandb_file.finished(path)


@pytest.mark.script
def test_without_rows_and_artifacts_only_values_are_sent(keyless, monkeypatch):
    """Nothing is left in the environment, and a second run in the process is another one."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name, rows in (("a", 0), ("b", 1)):
        dashboard = weights_and_biases.Wandb(rows=rows)
        loggers = dashboard(keyless / name, {"seed": 3})
        dashboard.publish(loggers, keyless / name, SUMMARY, [record("x"), record("y")])
        dashboard.finish(7)
        path = run_file(keyless / name)
        shown = wandb_file.summary(path)
        assert {key: shown.get(key) for key in VALUES} == VALUES
        assert shown.get("images.nrows") == (rows or None) and list(wandb_file.artifacts(path)) == ["run_table"] * rows
        assert wandb_file.exit_code(path) == 7 and wandb_file.config(path)["seed"] == 3 and wandb_file.run(path).display_name == name
    assert "WANDB_DATA_DIR" not in os.environ


def test_rows_hold_the_images_that_exist(tmp_path):
    """Truth 10, restoration 30: an error of 20 / 255, which is 80 where 0.25 is white; 200 more is white."""
    for name, mode in (("colour", "RGB"), ("grey", "L")):
        paint(tmp_path / "images" / name / "truth.png", 10, mode)
        paint(tmp_path / "images" / name / "restoration-1.png", 30, mode)
    paint(tmp_path / "images" / "far" / "truth.png", 250)
    paint(tmp_path / "images" / "far" / "restoration-0.png", [250, 50, 250])
    records = [record("colour", 1), record("grey", 1) | {"info": {"ess": 2.0}}, record("far"), record("colour", 0, None, "diverged")]
    rows = image_rows(tmp_path, records)
    assert len({tuple(row) for row in rows}) == 1 and [row["info/ess"] for row in rows] == [None, 2.0, None, None]
    errors = [None if row["error"] is None else np.unique(np.asarray(row["error"])).tolist() for row in rows]
    assert errors == [[80], [80], [255], None]
    assert [row["restoration"] for row in rows[::3]] == [tmp_path / "images" / "colour" / "restoration-1.png", None]
    assert [row["failure"] for row in rows] == [None, None, None, "diverged"] and rows[0]["measurement"] is None
    assert [(row["id"], row["sample"], row["psnr"], row["residual"]) for row in rows[2:]] == [
        ("far", 0, 10.0, 0.5),
        ("colour", 0, None, 0.5),
    ]


def read(path: Path) -> list[dict]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


def test_csv_keeps_each_part_of_a_run_and_removes_them_when_it_starts_over(tmp_path):
    for restart in (False, False):
        (logger,) = dashboards.CSV()(tmp_path, {}, restart)
        logger.log_metrics({"running/psnr": 11.0}, step=2)
        dashboards.CSV().publish([logger], tmp_path, SUMMARY, [])
    for part in ("version_0", "version_1"):
        running, end = read(tmp_path / "csv" / part / "metrics.csv")
        assert (running["step"], running["running/psnr"], end["step"]) == ("2", "11.0", "3")
        assert {key: float(end[key]) for key in VALUES} == VALUES
    (logger,) = dashboards.CSV()(tmp_path, {}, True)
    logger.log_metrics({"loss": 1.0}, step=50)
    assert read(tmp_path / "csv" / "version_0" / "metrics.csv") == [{"loss": "1.0", "step": "50"}]
    assert not (tmp_path / "csv" / "version_1").exists()


def test_tensorboard_holds_values_images_and_the_configuration(tmp_path):
    pytest.importorskip("tensorboard", reason='pip install -e ".[tensorboard]"')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    paint(tmp_path / "figure.png", [1, 2, 3])
    (logger,) = dashboards.TensorBoard()(tmp_path, {"solver": {"zeta": 0.3}})
    logger.log_metrics({"running/psnr": 11.0}, step=2)
    dashboards.log_image([logger], "samples", Image.new("L", (6, 4), 9), 2)
    logger.finalize("success")  # as Lightning does when its work is done
    dashboards.TensorBoard().publish([logger], tmp_path, SUMMARY, [])
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    scalars = {name: [(event.step, event.value) for event in found.Scalars(name)] for name in found.Tags()["scalars"]}
    assert scalars == {"running/psnr": [(2, 11.0)]} | {name: [(3, value)] for name, value in VALUES.items()}
    shapes = {name: (image.step, image.width, image.height) for name in found.Tags()["images"] for image in found.Images(name)}
    assert shapes == {"figure": (3, 5, 4), "samples": (2, 6, 4)}
    started = plugin_data_pb2.HParamsPluginData.FromString(found.PluginTagToContent("hparams")["_hparams_/session_start_info"])
    assert started.session_start_info.hparams["solver/zeta"].number_value == 0.3
    dashboards.TensorBoard()(tmp_path, {}, True)
    assert not (tmp_path / "tensorboard").exists()


def test_a_missing_tensorboard_is_refused_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr("diffusion_priors.runs.loggers.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'pip install -e "\.\[tensorboard\]"'):
        dashboards.TensorBoard()


def test_running_means_count_every_restoration_once(tmp_path):
    """b is on record, and its batch is restored again with c; d failed, so its step has the same mean."""
    (tmp_path / "records.jsonl").write_text("".join(json.dumps(one) + "\n" for one in (record("a", 0, 8.0), record("b", 0, 10.0))))
    recorder = recording.Recorder()
    trainer = SimpleNamespace(loggers=[recorder])
    log = restoration.LogRun(recorder, tmp_path)
    log.on_predict_start(trainer, SimpleNamespace(metrics=SimpleNamespace(names=("psnr",))))
    for batch in ([record("b", 0, 99.0), record("c", 0, 15.0)], [record("d", 0, None, "diverged")]):
        log.on_predict_batch_end(trainer, None, SimpleNamespace(records=batch), None, 0)
    assert recorder.rows == [(3, {"running/psnr": 11.0, "running/residual": 0.5}), (4, {"running/psnr": 11.0, "running/residual": 0.5})]


TINY = [
    *("prior=custom", "prior.network._target_=broken_networks.NaNForBright", "prior.checkpoint=null", "prior.size=[16,16]"),
    *("grid.steps=1", "metrics.lpips=null", "batch_size=2", f"data.root={PROJECT / 'examples' / 'faces'}"),
]


def evaluation(folder: Path, *overrides: str, **parts):
    """A run of evaluate.py, with `parts` instead of those that the configuration names."""
    with hydra.initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        config = hydra.compose("evaluate", overrides=[*TINY, *overrides])
    plain = OmegaConf.to_container(config, resolve=True)
    run = build.build_evaluation(config, checks.settings_of(config, settings.EvaluateSettings), folder)
    for name, part in parts.items():
        setattr(run, name, part)
    run.check(plain)
    made_by = {"choices": {}, "overrides": [], "command": "python evaluate.py", "source": source_state(PROJECT)}
    text = OmegaConf.to_yaml(OmegaConf.create({"config": plain, **made_by}))
    return run, lambda: run.run(plain, text, "title")


@pytest.mark.parametrize(
    ("error", "code"), [(ValueError("no"), 2), (OSError("full"), 2), (RuntimeError("bug"), 1), (KeyboardInterrupt(), 130)]
)
def test_the_dashboard_gets_the_exit_code_of_an_error(tmp_path, error, code):
    recorder = recording.Recorder()
    _, go = evaluation(tmp_path / "run", logger=recorder, callbacks={"raising": own.Raising(error)})
    with pytest.raises(type(error)):
        go()
    assert recorder.codes == [code] and not recorder.published


def test_the_dashboard_gets_the_exit_code_of_a_stop(tmp_path):
    """The signal comes after the first of two batches: that one is on record, the second is not, and nothing is published."""
    recorder = recording.Recorder()
    handlers = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        run, go = evaluation(tmp_path / "run", logger=recorder, callbacks={"stop": own.Stopping(batches=1)})
        assert go() is None and run.stopped[1] == 143
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert recorder.codes == [143] and not recorder.published
    assert len(read_records(tmp_path / "run")) == 2 and not (tmp_path / "run" / "summary.json").exists()


def test_failed_restorations_give_exit_code_1_and_are_published(tmp_path):
    recorder = recording.Recorder()
    _, go = evaluation(tmp_path / "run", "+prior.network.above=-9.0", logger=recorder)
    assert go()["failed"] == 4
    assert recorder.codes == [1] and recorder.published[0][0]["failed"] == 4


def test_results_that_could_not_be_published_are_published_by_the_next_run(tmp_path):
    """Nothing is restored again, and the same results are published."""
    recorder, stumbling = recording.Recorder(), own.Stumbling()
    _, go = evaluation(tmp_path / "run", logger=recorder, callbacks={"stumbling": stumbling})
    with pytest.raises(RuntimeError, match="stumbled"):
        go()
    run, go = evaluation(tmp_path / "run", logger=recorder, callbacks={"stumbling": stumbling})
    assert run.finished is None and not run.pending
    assert go()["records"] == 4 and stumbling.times == 2
    assert recorder.codes == [1, 0] and recorder.published[0] == recorder.published[1]
    assert evaluation(tmp_path / "run")[0].finished["records"] == 4


def test_csv_of_an_evaluation(tmp_path):
    """A row of running means per batch, then one of the summary."""
    _, go = evaluation(tmp_path / "run", "logger=csv")
    summary = go()
    rows = read(tmp_path / "run" / "csv" / "version_0" / "metrics.csv")
    assert [row["step"] for row in rows] == ["2", "4", "4"]
    psnr = summary["statistics"]["single"]["psnr"]["mean"]
    assert float(rows[-1]["single/psnr"]) == pytest.approx(psnr) == float(rows[-2]["running/psnr"]) and not rows[0]["single/psnr"]


@pytest.mark.script
def test_wandb_of_lightning_takes_images(keyless, monkeypatch):
    """The validation of train.py sends images."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    (logger,) = weights_and_biases.Wandb()(keyless / "run", {})
    assert isinstance(logger, lightning_loggers.WandbLogger)
    dashboards.log_image([logger], "samples", Image.new("RGB", (6, 4)), 50)
    weights_and_biases.Wandb().finish(0)
    path = run_file(keyless / "run")
    assert wandb_file.history(path)[0]["trainer/global_step"] == 50 and wandb_file.summary(path)["samples.count"] == 1


def test_calibration_is_among_the_values():
    found = {"mean": 0.4, "se": 0.01, "low": 0.38, "high": 0.42, "n": 3}
    calibration = {"images": 3, "coverage": {"0.5": found}, "correlation": None}
    summary = {"images": 3, "records": 12, "failed": 0, "sigma_y": None, "statistics": {}, "cost": {}, "calibration": calibration}
    published = {name: value for name, value in dashboards.summary_values(summary).items() if name.startswith("calibration")}
    assert published == {"calibration/coverage_0.5": 0.4, "calibration/coverage_0.5_se": 0.01}
