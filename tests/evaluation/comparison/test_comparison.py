"""Two runs compared: the right pairs, the right sign, and a note for everything else that differs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from lazy import Lazy
from PIL import Image

from diffusion_priors.evaluation.comparison.compare import compare
from diffusion_priors.evaluation.reporting.format import number, p_value
from diffusion_priors.evaluation.summary import summarise

stats = Lazy("scipy.stats")

NAMES = [f"face-{i:02d}" for i in range(12)]
CONFIG = {"solver": {"_target_": "diffusion_priors.solvers.dps.DPS", "zeta": 1.0}, "grid": {"steps": 250}, "seed": 0, "num_samples": 1}
CHOICES = {"solver": "dps", "operator": "inpaint_box"}


def row(name: str, sample: int = 0, **changes: object) -> dict:
    """A line of records.jsonl; an image's scores are its own, so that runs pair."""
    own = np.random.default_rng([ord(letter) for letter in name] + [sample])
    scores = {"psnr": own.uniform(18, 30), "ssim": own.uniform(0.5, 0.9), "lpips": own.uniform(0.1, 0.4)}
    cost = {"residual": own.uniform(0.04, 0.06), "nfe_forward": 250, "nfe_vjp": 250, "seconds": own.uniform(3, 4), "sigma_y": 0.05}
    measured = {"psnr_measurement": 12.0, "ssim_measurement": 0.3, "lpips_measurement": None, "measurement_hash": f"y-{name}"}
    return {"id": name, "sample": sample, "seed": 0} | scores | cost | measured | {"peak_memory_mib": 800.0, "error": None} | changes


def write_run(
    root: Path, records: list[dict], posterior: list[dict] = (), config: dict = CONFIG, choices: dict = CHOICES, complete: bool = True
) -> Path:
    root.mkdir(parents=True)
    (root / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    if posterior:
        (root / "posterior.jsonl").write_text("".join(json.dumps(one) + "\n" for one in posterior))
    (root / "config.yaml").write_text(yaml.safe_dump({"config": config | {"output_dir": str(root)}, "choices": choices}))
    if complete:
        write_summary(root, records)
    return root


def write_summary(root: Path, records: list[dict], complete: bool = True) -> None:
    summary = summarise(f"title of {root.name}", records, [], ("psnr", "ssim", "lpips"), 1, complete)
    (root / "summary.json").write_text(json.dumps(summary))


def shifted(gains: np.ndarray, metric: str = "psnr", names: list[str] = NAMES, **changes: object) -> list[dict]:
    return [row(name, **changes) | {metric: row(name)[metric] + gain} for name, gain in zip(names, gains, strict=True)]


def only(found, metric: str, section: str = "single"):
    (one,) = [one for one in found.rows if (one.statistic.key, one.metric.name) == (section, metric)]
    return one


@pytest.fixture
def plain_run(tmp_path):
    return write_run(tmp_path / "plain", [row(name) for name in NAMES])


@pytest.fixture
def gains():
    return np.random.default_rng(0).normal(0.5, 0.4, len(NAMES)).round(3)


def test_the_statistics_agree_with_scipy(tmp_path, plain_run, gains):
    better = write_run(tmp_path / "better", shifted(gains))
    found = compare(better, plain_run)
    psnr = only(found, "psnr")
    base = np.array([row(name)["psnr"] for name in NAMES])
    test = stats.ttest_rel(base + gains, base)
    assert (psnr.first.mean, psnr.second.mean) == (pytest.approx((base + gains).mean()), pytest.approx(base.mean()))
    assert psnr.difference.estimate.mean == pytest.approx(gains.mean())
    assert (psnr.difference.estimate.low, psnr.difference.estimate.high) == pytest.approx(tuple(test.confidence_interval(0.95)))
    assert psnr.difference.t_test == pytest.approx(test.pvalue)
    assert psnr.difference.wilcoxon == pytest.approx(stats.wilcoxon(gains).pvalue)
    assert psnr.won_lost == ((gains > 0).sum(), (gains < 0).sum()) and psnr.won_lost[1] > 0 and psnr.tied == 0
    assert [(one.statistic.key, one.metric.name) for one in found.rows] == [
        ("single", m) for m in ("psnr", "ssim", "lpips", "residual", "seconds")
    ]
    assert only(found, "ssim").tied == len(NAMES) and only(found, "ssim").verdict() == "the same on every image"
    assert found.notes == []


@pytest.mark.parametrize(("metric", "up"), [("psnr", True), ("ssim", True), ("lpips", False), ("lpips_vgg", False), ("seconds", False)])
def test_the_better_run_is_named_in_either_direction_of_the_metric(tmp_path, metric, up):
    base = [row(name, lpips_vgg=row(name)["lpips"]) for name in NAMES]
    gains = np.random.default_rng(1).uniform(0.01, 0.03, len(NAMES))
    raised = write_run(tmp_path / "raised", [one | {metric: one[metric] + gain} for one, gain in zip(base, gains, strict=True)])
    as_is = write_run(tmp_path / "as-is", base)
    one, back = only(compare(raised, as_is), metric), only(compare(as_is, raised), metric)
    assert one.verdict().startswith("first is better by 0.0" if up else "second is better by 0.0")
    assert back.verdict().startswith("second is better by 0.0" if up else "first is better by 0.0")
    assert one.won_lost == ((12, 0) if up else (0, 12)) and back.won_lost == one.won_lost[::-1]
    assert one.verdict().split(" ", 1)[1] == back.verdict().split(" ", 1)[1]


def test_a_residual_has_no_better_direction(tmp_path, plain_run):
    more = write_run(tmp_path / "more", shifted(np.linspace(0.01, 0.02, 12), "residual"))
    one = only(compare(plain_run, more), "residual")
    assert one.verdict().startswith("second is higher by 0.015") and one.won_lost == (None, None)
    assert (one.to_dict()["lower"], one.to_dict()["won"]) == (12, None)


def test_the_verdict_in_words(tmp_path, plain_run):
    """A difference with its interval from either side, one within chance, one of no spread."""
    gains = np.array([0.1, 0.5, 0.9] * 4)
    half = stats.t.ppf(0.975, 11) * gains.std(ddof=1) / np.sqrt(12)
    run = write_run(tmp_path / "run", shifted(gains))
    words = only(compare(run, plain_run), "psnr").verdict()
    assert words.startswith(f"first is better by 0.50 dB (95 % interval {0.5 - half:.2f} to {0.5 + half:.2f}, p = 0.0")
    assert only(compare(plain_run, run), "psnr").verdict() == words.replace("first", "second")
    chance = write_run(tmp_path / "chance", shifted(np.array([-0.5, 0.4, 0.2, -0.3] * 3)))
    says = only(compare(chance, plain_run), "psnr").verdict()
    assert says.startswith("no difference larger than chance (−0.05 dB, 95 % interval −0.") and "p = 0." in says
    alike = write_run(tmp_path / "alike", [row(name, psnr=20.5) for name in NAMES])
    flat = write_run(tmp_path / "flat", [row(name, psnr=20.0) for name in NAMES])
    assert only(compare(alike, flat), "psnr").verdict() == "first is better by 0.50 dB, by the same amount on every image"
    even = write_run(tmp_path / "even", [row(name, psnr=20.0 + 0.5 * (-1) ** i) for i, name in enumerate(NAMES)])
    assert only(compare(even, flat), "psnr").verdict().startswith("no difference larger than chance (0.00 dB")


def test_one_image_says_nothing_about_others(tmp_path, plain_run):
    run = write_run(tmp_path / "run", shifted(np.array([0.5]), names=NAMES[:1]))
    found = compare(run, plain_run)
    assert only(found, "psnr").verdict() == "first is better by 0.50 dB on the only image, which says nothing about others"
    assert "–" in found.text() and found.images == 1


def test_samples_of_an_image_are_one_value(tmp_path, plain_run):
    """Twelve images of four samples are twelve values, each the mean of four, not forty-eight."""
    records = [row(name, sample) for name in NAMES for sample in range(4)]
    run = write_run(tmp_path / "run", records)
    found = compare(run, plain_run)
    psnr = only(found, "psnr")
    assert psnr.difference.estimate.n == 12
    means = [np.mean([row(name, sample)["psnr"] for sample in range(4)]) for name in NAMES]
    assert psnr.first.mean == pytest.approx(np.mean(means)) and psnr.first.se == pytest.approx(stats.sem(means))
    assert found.notes == [
        "the numbers of samples differ for 12 images (face-00, face-01, face-02, …): 4 in the first run, 1 in the second"
    ]


def test_posterior_means_are_compared_separately(tmp_path):
    def posterior(gain: float) -> list[dict]:
        return [
            {"id": name, "samples": 2, "deviation": 0.02, "psnr": row(name)["psnr"] + gain * (1 + i % 3)} for i, name in enumerate(NAMES)
        ]

    records = [row(name, sample) for name in NAMES for sample in range(2)]
    failing = [one | ({"error": "not finite", "psnr": None} if one["id"] == NAMES[0] and one["sample"] else {}) for one in records]
    first, second = write_run(tmp_path / "a", records, posterior(0.5)), write_run(tmp_path / "b", failing, posterior(0.0))
    found = compare(first, second)
    mean = only(found, "psnr", "posterior_mean")
    assert (
        mean.difference.estimate.mean == pytest.approx(0.5 * np.mean([1 + i % 3 for i in range(1, 12)]))
        and mean.difference.estimate.n == 11
    )
    assert mean.name == "posterior mean: PSNR (dB) ↑" and f"- {mean.name}: first is better by" in found.text()
    assert only(found, "psnr").tied == 11
    assert only(found, "deviation", "posterior_mean").tied == 11 and "samples" not in {one.metric.name for one in found.rows}
    alone = compare(first, write_run(tmp_path / "c", records))
    assert {one.statistic.key for one in alone.rows} == {"single"}


def test_images_are_paired_by_name_in_any_order_and_number(tmp_path, plain_run, gains):
    records = shifted(gains)[::-1][:-2] + [row(f"other-{i}") for i in range(5)]
    found = compare(write_run(tmp_path / "run", records), plain_run)
    assert found.images == 10 and only(found, "psnr").difference.estimate.mean == pytest.approx(gains[2:].mean())
    assert found.notes == [
        "5 images (other-0, other-1, other-2, …) only in the first run: left out",
        "2 images (face-00, face-01) only in the second run: left out",
    ]


def test_failed_images_are_left_out_of_both(tmp_path, plain_run, gains):
    records = shifted(gains)
    records[3] |= {"psnr": None, "error": "not finite after step 3"}
    found = compare(plain_run, write_run(tmp_path / "run", records))
    assert found.images == 11 and only(found, "ssim").difference.estimate.n == 11
    assert only(found, "psnr").difference.estimate.mean == pytest.approx(-np.delete(gains, 3).mean())
    assert found.notes == ["1 image (face-03) failed in the second run: left out of both"]


def test_an_image_without_a_value_is_left_out_of_that_metric_alone(tmp_path, plain_run, gains):
    records = shifted(gains)
    records[0]["psnr"], records[1]["psnr"] = None, None
    run = write_run(tmp_path / "run", [one | {"lpips": None} for one in records])
    found = compare(run, plain_run)
    psnr = only(found, "psnr")
    assert psnr.difference.estimate.mean == pytest.approx(gains[2:].mean())
    assert psnr.first.mean - psnr.second.mean == pytest.approx(gains[2:].mean())
    assert (psnr.difference.estimate.n, only(found, "ssim").difference.estimate.n) == (10, 12)
    assert only(compare(plain_run, run), "psnr").difference.estimate.mean == pytest.approx(-gains[2:].mean())
    assert "lpips" not in {one.metric.name for one in found.rows}
    assert found.notes == ["lpips has values in the second run only: not compared"]


def test_what_a_solver_reports_of_itself_is_not_compared(tmp_path, plain_run):
    run = write_run(tmp_path / "run", [row(name, info={"ess": 3.5, "inner_steps": 4}) for name in NAMES])
    found = compare(run, plain_run)
    assert [one.metric.name for one in found.rows] == ["psnr", "ssim", "lpips", "residual", "seconds"] and found.notes == []


def test_different_measurements_and_seeds_are_noted(tmp_path, plain_run):
    records = [row(name, measurement_hash=f"y-{name}" if i else "another", seed=int(i > 5)) for i, name in enumerate(NAMES)]
    found = compare(plain_run, write_run(tmp_path / "run", records))
    assert found.notes == [
        "the measurement differs for 1 image (face-00) of 12: a part of each difference comes from the measurements",
        "the seeds differ: 0 in the first run, 0, 1 in the second",
    ]


def test_runs_without_measurements_have_no_note_about_them(tmp_path):
    first, second = (write_run(tmp_path / key, [row(name, measurement_hash=None) for name in NAMES]) for key in "ab")
    assert compare(first, second).notes == []


def test_different_truths_under_the_same_names_are_noted(tmp_path, plain_run):
    other = write_run(tmp_path / "other", [row(name) for name in NAMES])
    for root, levels in ((plain_run, (10, 20, 30)), (other, (10, 20, 31))):
        for name, level in zip(NAMES[:3], levels, strict=True):
            (root / "images" / name).mkdir(parents=True)
            Image.new("RGB", (4, 4), (level,) * 3).save(root / "images" / name / "truth.png")
    Image.new("RGB", (4, 4), (20,) * 3).save(other / "images" / NAMES[1] / "truth.png", compress_level=0)  # the same pixels in other bytes
    (note,) = compare(plain_run, other).notes
    assert note.startswith("the truth differs for 1 image (face-02): ")
    (other / "images" / NAMES[0] / "truth.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"truth\.png is damaged"):
        compare(plain_run, other)


def test_unfinished_and_failed_runs_are_noted(tmp_path, plain_run):
    early = write_run(tmp_path / "early", [row(name) for name in NAMES], complete=False)
    assert [note[:32] for note in compare(early, plain_run).notes] == ["the first run is not finished: o"]
    write_summary(early, [row(name) for name in NAMES], complete=False)
    (early / "error.txt").write_text("Traceback")
    assert [note[:32] for note in compare(plain_run, early).notes] == [
        "the second run is not finished: ",
        "the second run ended in an error",
    ]


def test_records_of_several_processes_are_read(tmp_path, plain_run, gains):
    run = write_run(tmp_path / "run", shifted(gains)[:7], complete=False)
    (run / "records.1.jsonl").write_text("".join(json.dumps(one) + "\n" for one in shifted(gains)[7:]) + '{"id": "face-9')
    assert only(compare(run, plain_run), "psnr").difference.estimate.mean == pytest.approx(gains.mean())


def test_times_shared_by_a_batch_are_noted(tmp_path, plain_run):
    run = write_run(tmp_path / "run", [row(name, seconds=float(i // 4)) for i, name in enumerate(NAMES)])
    (note,) = compare(plain_run, run).notes
    assert note.startswith("the images of a batch share one time")


def test_differences_of_the_configurations_are_listed(tmp_path, plain_run):
    config = CONFIG | {"solver": {"_target_": "diffusion_priors.solvers.sdedit.SDEdit", "t_star": 500}, "data": {"root": "a|b"}}
    run = write_run(tmp_path / "run", [row(name) for name in NAMES], config=config, choices=CHOICES | {"solver": "sdedit"})
    found = compare(plain_run, run)
    assert found.changes == [
        ("data.root", "–", "a|b"),
        ("solver =", "dps", "sdedit"),
        ("solver._target_", "diffusion_priors.solvers.dps.DPS", "diffusion_priors.solvers.sdedit.SDEdit"),
        ("solver.t_star", "–", "500"),
        ("solver.zeta", "1.0", "–"),
    ]
    assert "a\\|b" in found.markdown() and "a|b" in found.text() and "output_dir" not in found.text()


def test_text_markdown_and_dictionary_agree(tmp_path, plain_run, gains):
    run = write_run(tmp_path / "run", shifted(gains, seed=1), config=CONFIG | {"seed": 1})
    found = compare(run, plain_run)
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    psnr = only(found, "psnr")
    for text in (found.text(), found.markdown()):
        for part in (str(run), "title of run", psnr.verdict(), *psnr.cells(), "the seeds differ: 1", "images in common: 12"):
            assert part in text
    assert plain["metrics"]["single"]["psnr"]["difference"]["mean"] == psnr.difference.estimate.mean
    assert plain["metrics"]["single"]["psnr"]["words"] == psnr.verdict()
    assert set(plain["metrics"]) == {"single"} and plain["configuration"] == {"seed": ["1", "0"]} and plain["notes"] == found.notes
    bars = [line for line in found.markdown().splitlines() if line.startswith("| ")]
    assert bars and {line.count("|") for line in bars[:5]} == {12}


def test_numbers_have_a_true_minus_sign_and_no_negative_zero():
    assert [number(value, ".2f") for value in (-0.001, -1.234, 12.0)] == ["0.00", "−1.23", "12.00"]
    assert [p_value(p) for p in (3e-5, 0.000412, 0.3, 1.0)] == ["p < 0.0001", "p = 0.00041", "p = 0.3", "p = 1"]


def test_small_differences_keep_their_digits(tmp_path, plain_run):
    gains = np.random.default_rng(2).normal(2e-4, 1e-4, 12)
    run = write_run(tmp_path / "run", shifted(gains, "ssim"))
    assert only(compare(run, plain_run), "ssim").verdict().startswith(f"first is better by {gains.mean():.6f} (")


LINE = json.dumps(row("a"))


def test_folders_that_are_not_runs_are_refused(tmp_path, plain_run):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    write_run(tmp_path / "sweep" / "solver=dps", [row(NAMES[0])])
    for path, says in (
        (tmp_path / "none", "no folder "),
        (tmp_path / "file", "no folder "),
        (tmp_path / "empty", "holds no records; name the output folder of a run"),
        (tmp_path / "sweep", "it is the folder of a sweep: name one of its jobs, such as .*solver=dps"),
    ):
        with pytest.raises(FileNotFoundError, match=says):
            compare(plain_run, path)
    (tmp_path / "empty" / "not_applicable.txt").write_text("solver=ddrm needs a spectrum\n")
    with pytest.raises(ValueError, match="empty holds no results: solver=ddrm needs a spectrum; name the output folder of another run"):
        compare(plain_run, tmp_path / "empty")
    with pytest.raises(ValueError, match="names one folder twice"):
        compare(plain_run, plain_run.parent / "empty" / ".." / plain_run.name)


def test_runs_without_an_image_in_common_are_refused(tmp_path, plain_run):
    other = write_run(tmp_path / "other", [row("x"), row("y"), row(NAMES[0], error="not finite")])
    with pytest.raises(ValueError, match=r"no image in common: 12 images .* and 2 images \(and 1 failed\)"):
        compare(plain_run, other)


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("records.jsonl", f"{LINE}\nnot JSON\n", r"line 2 of .*records\.jsonl is damaged \(it is not JSON\); .* repair=true"),
        ("posterior.jsonl", '{"samples": 2}\n', r"line 1 of .*posterior\.jsonl is damaged \(it lacks the key id\)"),
        ("posterior.jsonl", "[]\n", r"line 1 of .*posterior\.jsonl is damaged"),
        ("config.yaml", "config: [", r"config\.yaml is damaged: line"),
        ("config.yaml", "config: 3", r"config\.yaml is damaged: it holds no configuration"),
        ("config.yaml", "", r"config\.yaml is damaged: it holds no configuration"),
        ("summary.json", "{", r"summary\.json is damaged"),
        ("summary.json", "[]", r"summary\.json is damaged: Input should be a valid dictionary"),
    ],
)
def test_damaged_folders_are_refused_in_one_line(tmp_path, plain_run, file, content, says):
    run = write_run(tmp_path / "run", [row(name) for name in NAMES])
    (run / file).write_text(content)
    with pytest.raises(ValueError, match=says) as caught:
        compare(plain_run, run)
    assert "\n" not in str(caught.value)


def test_a_folder_without_its_configuration_is_refused(tmp_path, plain_run):
    run = write_run(tmp_path / "run", [row(name) for name in NAMES])
    (run / "config.yaml").unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.yaml is missing"):
        compare(plain_run, run)
