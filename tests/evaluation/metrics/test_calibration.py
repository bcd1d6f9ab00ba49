"""Calibration of samples: laws for which every coverage is known, and the files of a run."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from diffusion_priors.evaluation.metrics.calibration import Calibration, Counts, rank_shares
from diffusion_priors.evaluation.reporting.reliability import inline, write_reliability
from diffusion_priors.evaluation.reporting.summary_text import calibration_lines

LEVELS = (0.5, 0.95)
SIDE, SAMPLES, IMAGES = 4000, 9, 12


def told(scale: float = 1.0, shift: float = 0.0, law: str = "normal") -> dict:
    """Of truths from N(m, s²), s different at every pixel, and samples from N(m + shift s, (scale s)²), or another law of both."""
    rng = np.random.default_rng(0)
    counts = Counts(LEVELS)
    for _ in range(IMAGES):
        mean, spread = rng.uniform(0.4, 0.6, SIDE), rng.uniform(0.005, 0.1, SIDE)
        draw = {"normal": rng.standard_normal, "exponential": rng.standard_exponential}[law]
        counts.add(mean + spread * (shift + scale * draw((SAMPLES, SIDE))), mean + spread * draw(SIDE))
    return counts.told(10)


def known(found: dict) -> tuple[float, float]:
    return found["mean"], found["se"]


@pytest.mark.parametrize("law", ["normal", "exponential"])
def test_ranks_of_exchangeable_draws_cover_what_they_say_whatever_the_law(law):
    """Within 4 standard errors, each."""
    covered = told(law=law)["rank_coverage"]
    assert [one["nominal"] for one in covered] == pytest.approx([0.8, 0.6, 0.4, 0.2])
    for one in covered:
        mean, se = known(one)
        assert abs(mean - one["nominal"]) < 4.0 * se and se < 0.005


def test_students_intervals_cover_what_they_say_of_gaussian_draws():
    found = told()
    for level in LEVELS:
        mean, se = known(found["coverage"][f"{level:g}"])
        assert abs(mean - level) < 4.0 * se and se < 0.005
    for group in found["groups"]:  # of 9600 values each: no group is judged by the samples that chose it
        assert group["error"] == pytest.approx(group["predicted"], rel=0.05)
        assert all(abs(group["coverage"][f"{level:g}"] - level) < 0.02 for level in LEVELS)


@pytest.mark.parametrize(("scale", "shift", "sign"), [(0.5, 0.0, -1), (2.0, 0.0, 1), (1.0, 1.0, -1)])
def test_samples_too_close_too_wide_or_beside_are_seen(scale, shift, sign):
    """By every interval and by the spread, in the right direction and by far more than chance."""
    found = told(scale, shift)
    for nominal, one in [*zip(LEVELS, found["coverage"].values(), strict=True), *((one["nominal"], one) for one in found["rank_coverage"])]:
        mean, se = known(one)
        assert sign * (mean - nominal) > 8.0 * se
    assert all(sign * (group["predicted"] - group["error"]) > 0.0 for group in found["groups"])


def test_groups_go_from_the_least_to_the_most_spread_and_hold_all_pixels():
    groups = told()["groups"]
    assert len(groups) == 10 and sum(group["share"] for group in groups) == pytest.approx(1.0)
    assert all(abs(group["share"] - 0.1) < 0.005 for group in groups)
    assert [group["predicted"] for group in groups] == sorted(group["predicted"] for group in groups)


def test_equal_values_share_their_ranks_as_a_drawn_one_would_in_expectation():
    rng = np.random.default_rng(1)
    drawn, truth = rng.integers(0, 3, (4, 500)).astype(float), rng.integers(0, 3, 500).astype(float)
    averaged = np.zeros(5)
    for _ in range(4000):
        jitter, own = rng.uniform(0, 0.5, drawn.shape), rng.uniform(0, 0.5, truth.shape)
        averaged += np.bincount((drawn + jitter < truth + own).sum(0), minlength=5) / 500 / 4000
    assert rank_shares(drawn, truth) == pytest.approx(averaged, abs=2e-3)
    assert rank_shares(np.zeros((4, 7)), np.zeros(7)) == pytest.approx([0.2] * 5)
    assert rank_shares(drawn, truth).sum() == pytest.approx(1.0)


def test_correlation_is_of_spread_and_error():
    rng = np.random.default_rng(2)
    spread = np.array([0.01] * 500 + [0.1] * 500)
    error = rng.choice([-1.0, 1.0], 1000) * spread
    counts = Counts(LEVELS)
    counts.add(np.stack([0.5 - spread, 0.5 + spread] * 2), 0.5 + error)
    assert counts.told(2)["correlation"]["mean"] == pytest.approx(1.0)


@pytest.fixture
def run(tmp_path):
    """Three images of five samples as a run leaves them, a fourth without truth, a fifth of which one failed."""
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


def test_images_are_read_as_they_lie_and_only_whole_sets_count(run):
    root, records = run
    counts = Counts(LEVELS)
    for name in "abc":
        own = [np.asarray(Image.open(root / "images" / name / f"{file}.png")).transpose(2, 0, 1).ravel() / 255.0 for file in
               (*(f"restoration-{sample}" for sample in range(5)), "truth")]  # fmt: skip
        counts.add(np.stack(own[:-1]), own[-1])
    found, wanted = Calibration()(root, records), counts.told(10)
    assert found["images"] == 3 and found["samples"] == 5
    assert found["coverage"] == wanted["coverage"] and found["rank_coverage"] == wanted["rank_coverage"]
    assert [group["error"] for group in found["groups"]] == pytest.approx([group["error"] for group in wanted["groups"]], rel=1e-6)
    text = "\n".join(calibration_lines(found))
    assert "calibration of 5 samples, 3 images: 50% intervals cover" in text and "95% intervals cover" in text


def test_the_plots_are_drawn(run):
    root, records = run
    found = Calibration()(root, records)
    write_reliability(root, found)
    assert Image.open(root / "reliability.png").size[0] > 900
    coverage, spread = inline(found)
    assert "nominal coverage" in coverage and "root mean square error" in spread


def test_nothing_to_count_is_said(run):
    root, records = run
    found = Calibration()(root, [record for record in records if record["id"] in "de"])
    assert found == {"images": 0} and calibration_lines(found) == ["calibration: no image has a truth and all its samples"]
    write_reliability(root, found)
    assert not (root / "reliability.png").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [({"levels": (0.5, 1.0)}, r"got \[0\.5, 1\.0\]"), ({"levels": ()}, r"got \[\]"), ({"groups": 1}, "groups must be at least 2, got 1")],
)
def test_numbers_out_of_bounds_are_refused(arguments, told):
    with pytest.raises(ValueError, match=told):
        Calibration(**arguments)


def test_too_few_samples_are_refused_before_anything_is_computed():
    with pytest.raises(ValueError, match=r"num_samples=1 says nothing: at least 4 .* set num_samples=16"):
        Calibration().check(1)
    Calibration().check(4)
