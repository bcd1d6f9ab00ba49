"""Calibration of samples: laws for which every coverage is known, and the files of a run."""

from __future__ import annotations

import numpy as np
import pytest
from lazy import Lazy
from PIL import Image

from diffusion_priors.evaluation.metrics.calibration import Calibration, Counts, rank_shares
from diffusion_priors.evaluation.reporting.summary_text import calibration_lines

reliability = Lazy("diffusion_priors.evaluation.reporting.reliability")

LEVELS = (0.5, 0.95)
SIDE, SAMPLES, IMAGES = 4000, 9, 12


def summarised(scale: float = 1.0, shift: float = 0.0, law: str = "normal") -> dict:
    """Ground truths from N(m, s²), with another s at each pixel, and samples from N(m + shift s, (scale s)²); or both from another law."""
    rng = np.random.default_rng(0)
    counts = Counts(LEVELS)
    for _ in range(IMAGES):
        mean, spread = rng.uniform(0.4, 0.6, SIDE), rng.uniform(0.005, 0.1, SIDE)
        draw = {"normal": rng.standard_normal, "exponential": rng.standard_exponential}[law]
        counts.add(mean + spread * (shift + scale * draw((SAMPLES, SIDE))), mean + spread * draw(SIDE))
    return counts.summary(10)


def known(found: dict) -> tuple[float, float]:
    return found["mean"], found["se"]


@pytest.mark.parametrize("law", ["normal", "exponential"])
def test_rank_intervals_of_exchangeable_draws_have_their_nominal_coverage_for_every_law(law):
    """Each within 4 standard errors."""
    covered = summarised(law=law)["rank_coverage"]
    assert [one["nominal"] for one in covered] == pytest.approx([0.8, 0.6, 0.4, 0.2])
    for one in covered:
        mean, se = known(one)
        assert abs(mean - one["nominal"]) < 4.0 * se and se < 0.005


def test_students_intervals_of_gaussian_draws_have_their_nominal_coverage():
    found = summarised()
    for level in LEVELS:
        mean, se = known(found["coverage"][f"{level:g}"])
        assert abs(mean - level) < 4.0 * se and se < 0.005
    for group in found["groups"]:  # 9600 values each: no group is evaluated on the samples that selected it
        assert group["error"] == pytest.approx(group["predicted"], rel=0.05)
        assert all(abs(group["coverage"][f"{level:g}"] - level) < 0.02 for level in LEVELS)


@pytest.mark.parametrize(("scale", "shift", "sign"), [(0.5, 0.0, -1), (2.0, 0.0, 1), (1.0, 1.0, -1)])
def test_samples_that_are_too_narrow_too_wide_or_shifted_are_detected(scale, shift, sign):
    """Every interval and the spread show it, in the correct direction and far beyond chance."""
    found = summarised(scale, shift)
    for nominal, one in [*zip(LEVELS, found["coverage"].values(), strict=True), *((one["nominal"], one) for one in found["rank_coverage"])]:
        mean, se = known(one)
        assert sign * (mean - nominal) > 8.0 * se
    assert all(sign * (group["predicted"] - group["error"]) > 0.0 for group in found["groups"])


def test_groups_are_sorted_by_spread_and_contain_all_pixels():
    groups = summarised()["groups"]
    assert len(groups) == 10 and sum(group["share"] for group in groups) == pytest.approx(1.0)
    assert all(abs(group["share"] - 0.1) < 0.005 for group in groups)
    assert [group["predicted"] for group in groups] == sorted(group["predicted"] for group in groups)


def test_ties_share_their_ranks_like_randomly_broken_ties_in_expectation():
    rng = np.random.default_rng(1)
    drawn, truth = rng.integers(0, 3, (4, 500)).astype(float), rng.integers(0, 3, 500).astype(float)
    averaged = np.zeros(5)
    for _ in range(4000):
        jitter, own = rng.uniform(0, 0.5, drawn.shape), rng.uniform(0, 0.5, truth.shape)
        averaged += np.bincount((drawn + jitter < truth + own).sum(0), minlength=5) / 500 / 4000
    assert rank_shares(drawn, truth) == pytest.approx(averaged, abs=2e-3)
    assert rank_shares(np.zeros((4, 7)), np.zeros(7)) == pytest.approx([0.2] * 5)
    assert rank_shares(drawn, truth).sum() == pytest.approx(1.0)


def test_the_correlation_is_that_of_spread_and_error():
    rng = np.random.default_rng(2)
    spread = np.array([0.01] * 500 + [0.1] * 500)
    error = rng.choice([-1.0, 1.0], 1000) * spread
    counts = Counts(LEVELS)
    counts.add(np.stack([0.5 - spread, 0.5 + spread] * 2), 0.5 + error)
    assert counts.summary(2)["correlation"]["mean"] == pytest.approx(1.0)


@pytest.fixture
def run(tmp_path):
    """The files of a run: three images of five samples, a fourth without ground truth, a fifth with a failed sample."""
    rng = np.random.default_rng(3)
    records = []
    for name in "abcde":
        folder = tmp_path / "images" / name
        folder.mkdir(parents=True)
        for sample in range(5):
            failed = name == "e" and sample == 2
            records.append({"id": name, "sample": sample, "error": "not finite" if failed else None})
            if not failed:
                Image.fromarray(rng.integers(90, 120, (6, 5, 3), dtype=np.uint8)).save(folder / f"restoration-{sample}.png")
        if name != "d":
            Image.fromarray(rng.integers(90, 120, (6, 5, 3), dtype=np.uint8)).save(folder / "truth.png")
    return tmp_path, records


def test_images_are_read_from_disk_and_only_complete_sets_count(run):
    root, records = run
    counts = Counts(LEVELS)
    for name in "abc":
        own = [np.asarray(Image.open(root / "images" / name / f"{file}.png")).transpose(2, 0, 1).ravel() / 255.0 for file in
               (*(f"restoration-{sample}" for sample in range(5)), "truth")]  # fmt: skip
        counts.add(np.stack(own[:-1]), own[-1])
    found, wanted = Calibration()(root, records), counts.summary(10)
    assert found["images"] == 3 and found["samples"] == 5
    assert found["coverage"] == wanted["coverage"] and found["rank_coverage"] == wanted["rank_coverage"]
    assert [group["error"] for group in found["groups"]] == pytest.approx([group["error"] for group in wanted["groups"]], rel=1e-6)
    text = "\n".join(calibration_lines(found))
    assert "calibration of 5 samples, 3 images: 50% intervals cover" in text and "95% intervals cover" in text


def test_the_plots_are_drawn(run):
    root, records = run
    found = Calibration()(root, records)
    reliability.write_reliability(root, found)
    assert Image.open(root / "reliability.png").size[0] > 900
    coverage, spread = reliability.inline(found)
    assert "nominal coverage" in coverage and "root mean square error" in spread


def test_a_run_without_complete_images_says_so(run):
    root, records = run
    found = Calibration()(root, [record for record in records if record["id"] in "de"])
    assert found == {"images": 0} and calibration_lines(found) == ["calibration: no image has a truth and all its samples"]
    reliability.write_reliability(root, found)
    assert not (root / "reliability.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"levels": (0.5, 1.0)}, r"got \[0\.5, 1\.0\]"), ({"levels": ()}, r"got \[\]"), ({"groups": 1}, "groups must be at least 2, got 1")],
)
def test_numbers_out_of_bounds_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Calibration(**arguments)


def test_too_few_samples_are_refused_before_anything_is_computed():
    with pytest.raises(ValueError, match=r"num_samples=1 is not meaningful, at least 4 .* set num_samples=16"):
        Calibration().check(1)
    Calibration().check(4)
