"""Numbers as text, and the names of metrics and statistics."""

from __future__ import annotations

import pytest

from diffusion_priors.evaluation.reporting.format import (
    absent,
    forward_and_vjp,
    full_estimate,
    interval,
    number,
    p_number,
    p_value,
    plus_minus,
    score,
    signed_difference,
    thousands,
)
from diffusion_priors.evaluation.scores import BEST_OF_N, METRICS, POSTERIOR_MEAN, SINGLE, STATISTICS, metric_of
from diffusion_priors.evaluation.statistics import Estimate, estimate

FOUND = Estimate(26.617, 0.311, 25.984, 27.25, 12)
ONE = Estimate(-0.004, None, None, None, 1)


@pytest.mark.parametrize(
    ("value", "spec", "text"),
    [
        (None, ".2f", "–"),
        (-1.234, ".2f", "−1.23"),
        (-0.001, ".2f", "0.00"),
        (-0.001, "+.2f", "+0.00"),
        (0.5, "+.2f", "+0.50"),
        (-0.5, "+.2f", "−0.50"),
        (250, ".0f", "250"),
        (-1e-7, ".4g", "−1e−07"),
        (0.123, ".1%", "12.3%"),
    ],
)
def test_a_number_has_a_true_minus_sign_and_no_negative_zero(value, spec, text):
    assert number(value, spec) == text


def test_a_missing_value_points_to_the_footnote_only_if_that_explains_it():
    footnote = "SSIM, LPIPS: images are too small; LPIPS vgg: no trunk"
    assert [absent(name, footnote) for name in ("lpips", "lpips_vgg", "ssim")] == ["– *"] * 3
    assert [absent(name, footnote) for name in ("psnr", "lpips_squeeze", "mine")] == ["–"] * 3
    assert absent("lpips", None) == "–"


def test_an_estimate_shows_what_it_has():
    assert plus_minus(FOUND, ".2f") == "26.62 ± 0.31" and interval(FOUND, ".2f") == "[25.98, 27.25]"
    assert full_estimate(FOUND, ".2f") == "26.62 ± 0.31 [25.98, 27.25]" and full_estimate(ONE, ".3f") == "−0.004"
    assert (plus_minus(ONE, ".3f"), interval(ONE, ".3f")) == ("−0.004", "")
    assert (plus_minus(None, ".2f"), interval(None, ".2f"), full_estimate(None, ".2f")) == ("–", "", "–")


def test_a_difference_always_has_a_sign():
    assert signed_difference(Estimate(-0.5, 0.1, -0.81, 0.19, 4), ".2f") == "−0.50 [−0.81, +0.19]"
    assert signed_difference(Estimate(0.5, None, None, None, 1), ".2f") == "+0.50" and signed_difference(None, ".2f") == ""


def test_p_values_counts_and_scores():
    assert [p_value(p) for p in (3e-5, 0.000412, 0.3, 1.0)] == ["p < 0.0001", "p = 0.00041", "p = 0.3", "p = 1"]
    assert [p_number(p) for p in (None, 3e-5, 0.3)] == ["–", "< 0.0001", "0.3"]
    assert forward_and_vjp(250.0, None) == "250 + –" and thousands(10000) == "10,000"
    assert score("psnr", 21.304) == "PSNR 21.30 dB" and score("residual", 0.05) == "residual 0.0500" and score("mine", 1.0) == "mine 1.000"


def test_the_arrow_of_a_heading_points_to_the_better_values():
    headings = {name: metric.heading for name, metric in METRICS.items()}
    assert (headings["psnr"], headings["lpips"], headings["residual"]) == ("PSNR (dB) ↑", "LPIPS ↓", "residual")
    for metric in METRICS.values():
        assert metric.gain == (-1 if metric.heading.endswith("↓") else 1)


def test_a_metric_of_unknown_direction_has_no_arrow_and_counts_as_higher_is_better():
    mine = metric_of("mine")
    assert (mine.heading, mine.higher_is_better, mine.gain) == ("mine", None, 1)


def test_statistics_are_named_by_the_number_of_samples():
    assert (
        SINGLE.named(1) == "restoration" and SINGLE.named(4) == "single sample of 4" and BEST_OF_N.named(4).startswith("best of 4 samples")
    )
    assert (SINGLE.prefix, POSTERIOR_MEAN.prefix, BEST_OF_N.prefix) == ("", "posterior mean: ", "best of N: ")
    assert len({statistic.key for statistic in STATISTICS}) == len({statistic.label for statistic in STATISTICS}) == 5


def test_an_estimate_survives_a_dictionary():
    assert Estimate.from_dict(FOUND.to_dict()) == FOUND and Estimate.from_dict(None) is None
    assert Estimate.from_dict(estimate([1.0]).to_dict()) == estimate([1.0])
