"""summary.json and the printed table from records made by hand."""

from __future__ import annotations

import json
import random

import pytest
from sweep_folder import METRICS, record

from diffusion_priors.evaluation.reporting.finished_run import read_summary
from diffusion_priors.evaluation.reporting.summary_text import outcome, table
from diffusion_priors.evaluation.summary import summarise


def of(records, posterior=(), num_samples=1) -> dict:
    return summarise("title", records, posterior, METRICS, num_samples)


def two_samples() -> list[dict]:
    """Images a and b, two samples each; one of b's has failed."""
    scores = [("a", 0, 10.0, 0.4), ("a", 1, 20.0, 0.2), ("b", 0, 30.0, 0.6)]
    good = [record(name, sample, psnr=psnr, ssim=0.5, lpips=lpips) for name, sample, psnr, lpips in scores]
    return [*good, record("b", 1, error="not finite after step 3")]


def test_the_units_are_images_and_failures_have_no_score():
    """(10 + 20) / 2 and 30, not (10 + 20 + 30) / 3; the best is chosen for each metric."""
    found = of(
        two_samples(), [{"id": "a", "psnr": 18.0, "ssim": 0.6, "lpips": 0.1}, {"id": "b", "psnr": None, "ssim": None, "lpips": None}], 2
    )
    single, best, mean = (found["statistics"][key] for key in ("single", "best_of_n", "posterior_mean"))
    assert (single["psnr"]["mean"], single["psnr"]["n"]) == (22.5, 2) and single["lpips"]["mean"] == pytest.approx(0.45)
    assert best["psnr"]["mean"] == 25.0 and best["lpips"]["mean"] == pytest.approx(0.4)
    assert (mean["psnr"]["mean"], mean["psnr"]["n"], mean["psnr"]["se"]) == (18.0, 1, None)
    assert (found["images"], found["records"], found["failed"]) == (2, 4, 1)
    assert found["first_failure"] == "b: not finite after step 3"


def test_a_sample_can_be_chosen_by_its_residual_alone():
    """Whatever its scores are: the ground truth has no part in it. A failed sample is never chosen, and without y there is no choice."""
    records = two_samples()
    for one, residual in zip(records, (0.05, 0.07, 0.06, None), strict=True):
        one["residual"] = residual
    found = of(records, (), 2)["statistics"]["least_residual"]
    assert found["psnr"]["mean"] == 20.0 and found["lpips"]["mean"] == pytest.approx(0.5)
    for one in records:
        one["residual"] = None
    assert of(records, (), 2)["statistics"]["least_residual"]["psnr"] is None


def test_one_sample_has_no_posterior_statistics():
    found = of([record("a", psnr=10.0, ssim=0.5)])
    assert {*found["statistics"]} == {"measurement", "single"}
    assert found["statistics"]["single"]["psnr"] == {"mean": 10.0, "se": None, "low": None, "high": None, "n": 1}
    assert found["statistics"]["single"]["lpips"] is None and found["statistics"]["measurement"]["psnr"]["mean"] == 15.0


def test_the_order_of_the_records_changes_nothing():
    shuffled = random.Random(3).sample(two_samples(), 4)
    kept = of(two_samples(), (), 2)
    assert shuffled != two_samples() and of(sorted(shuffled, key=lambda one: (one["id"], one["sample"])), (), 2) == kept
    assert of(shuffled, (), 2)["measurements"] == kept["measurements"]


def test_the_hash_of_the_measurements_depends_on_all_of_them_and_on_their_names():
    base = of([record("a"), record("b")])["measurements"]
    assert of([record("a"), record("b", y="z")])["measurements"] != base != of([record("a")])["measurements"]
    assert of([record("a", y=None)])["measurements"] is None


def test_costs_are_means_but_memory_is_the_maximum():
    records = [record("a", seconds=1.0), record("b", seconds=3.0) | {"peak_memory_mib": 900.0}]
    cost = of(records)["cost"]
    assert (cost["nfe_forward"], cost["nfe_vjp"], cost["seconds"]["mean"], cost["peak_memory_mib"]) == (250.0, 250.0, 2.0, 900.0)


def test_a_run_without_a_restoration_has_a_table_of_dashes():
    found = of([record("a", error="not finite"), record("b", error="not finite")])
    assert found["statistics"]["single"]["psnr"] is None and found["failed"] == 2
    (row,) = [line for line in table(found).splitlines() if line.startswith("restoration")]
    assert row.split() == ["restoration", "–", "–", "–"]


def test_the_table_labels_every_row_and_says_why_lpips_is_missing():
    posterior = [{"id": name, "psnr": 20.0 + i, "ssim": 0.5, "lpips": None} for i, name in enumerate("ab")]
    records = [record(name, k, psnr=10.0 + k, ssim=0.5) for name in "ab" for k in (0, 1)]
    text = table(of(records, posterior, 2) | {"footnote": "LPIPS: no trunk"})
    labels = ["measurement", "single sample of 2", "posterior mean of 2 samples", "best of 2 samples, each metric on its own"]
    rows = {label: next(line for line in text.splitlines() if line.startswith(label)) for label in labels}
    assert "20.50 ± 0.50 [14.15, 26.85]" in rows[labels[2]] and "10.50" in rows[labels[1]] and "11.00" in rows[labels[3]]
    assert all(row.endswith("– *") for row in rows.values()) and text.endswith("* LPIPS: no trunk")
    assert "2 images · NFE 250 forward + 250 vjp · 1.00 s per restoration · residual 0.0500 · sigma_y 0.05 · peak memory 512 MiB" in text


def test_the_outcome_says_where_the_results_are(tmp_path):
    text = outcome(of([record("a", psnr=10.0)]), tmp_path)
    assert all(f"{tmp_path / name}" in text for name in ("images", "figure.png", "report.html"))


UNKNOWN_COST = dict.fromkeys(("residual", "sigma_y", "nfe_forward", "nfe_vjp", "seconds", "peak_memory_mib"))
"""Images made elsewhere have scores and nothing else."""


@pytest.mark.parametrize(
    "records", [two_samples(), [record("a", error="not finite")], [record("a", y=None)], [record("a", psnr=20.0) | UNKNOWN_COST]]
)
def test_what_is_written_fits_the_schema_that_readers_check(records, tmp_path):
    posterior = [{"id": "a", "psnr": 18.0, "ssim": 0.6, "lpips": 0.1}]
    for samples in (1, 2):
        found = of(records, posterior, samples) | {
            "footnote": "LPIPS: no trunk",
            "distribution": {"fid": 12.5},
            "calibration": {"images": 0},
        }
        (tmp_path / "summary.json").write_text(json.dumps(found))
        assert read_summary(tmp_path / "summary.json") == found


def test_the_best_of_a_metric_whose_direction_is_unknown_is_the_highest():
    records = [record("a", k) | {"mine": value, "mine_measurement": None} for k, value in enumerate((1.0, 3.0))]
    found = summarise("title", records, [{"id": "a", "mine": 2.0}], ("mine",), 2)
    assert found["statistics"]["best_of_n"]["mine"]["mean"] == 3.0


def test_a_run_that_stopped_early_is_not_complete():
    assert of([record("a")])["complete"] is True
    assert summarise("title", [record("a")], [], METRICS, 1, complete=False)["complete"] is False
