"""Means, intervals and paired tests: against textbooks, by counting, and by simulating their coverage."""

from __future__ import annotations

from itertools import product
from math import nan, sqrt

import numpy as np
import pytest
from lazy import Lazy
from scipy import integrate
from scipy.special import gamma

from diffusion_priors.evaluation.statistics import LEVEL, Estimate, estimate, paired

stats = Lazy("scipy.stats")

SLEEP = [[0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0], [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]]
"""Additional hours of sleep under two drugs (Student 1908, as R's `sleep`)."""

MAIZE = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
"""Darwin's crossed minus self-fertilised plants, in eighths of an inch (Fisher 1935, The Design of Experiments, §17)."""


def t_tail(t: float, degrees: int) -> float:
    """P(|T| > t), the density of Student's t integrated."""
    scale = gamma((degrees + 1) / 2) / (sqrt(degrees * np.pi) * gamma(degrees / 2))
    inside, _ = integrate.quad(lambda u: scale * (1 + u * u / degrees) ** (-(degrees + 1) / 2), 0, t)
    return 1 - 2 * inside


def binomial(p: float, n: int, deviations: float = 4.0) -> float:
    """How far a rate over n trials may be from p."""
    return deviations * sqrt(p * (1 - p) / n)


def test_an_estimate_is_the_mean_with_students_interval():
    values = np.random.default_rng(0).normal(3.0, 2.0, 7).tolist()
    mean = sum(values) / 7
    se = sqrt(sum((v - mean) ** 2 for v in values) / 6) / sqrt(7)
    found = estimate(values)
    assert (found.mean, found.se, found.n) == (pytest.approx(mean), pytest.approx(se), 7)
    assert found.mean - found.low == pytest.approx(found.high - found.mean)
    assert t_tail((found.high - found.mean) / se, 6) == pytest.approx(1 - LEVEL, abs=1e-9)


def test_estimate_of_two_values_by_hand():
    """s/√n = 1 of 3 and 5, and t_{1, 97.5 %} = tan(0.475 π)."""
    half = np.tan(0.475 * np.pi)
    assert estimate([3.0, 5.0]).to_dict() == pytest.approx({"mean": 4.0, "se": 1.0, "low": 4.0 - half, "high": 4.0 + half, "n": 2})


def test_missing_and_non_finite_values_are_ignored():
    values = [1.0, None, 2.0, nan, 4.0, float("inf"), float("-inf")]
    assert estimate(values) == estimate([1.0, 2.0, 4.0])
    assert estimate([]) is None and estimate([None, nan]) is None


def test_one_value_has_no_interval_and_equal_values_have_an_interval_of_width_zero():
    assert estimate([None, 5.0]) == Estimate(5.0, None, None, None, 1)
    assert estimate([0.5, 0.5, 0.5]) == Estimate(0.5, 0.0, 0.5, 0.5, 3)


def test_estimate_does_not_lose_digits_far_from_zero():
    values = [1e8 + offset for offset in (0.0, 1.0, 2.0)]
    assert estimate(values).se == pytest.approx(1 / sqrt(3), rel=1e-6)


def test_the_interval_covers_the_true_mean_at_its_nominal_rate():
    """Normal values, n = 5: an interval of ± 1.96 standard errors would cover in only 88 % of the cases."""
    trials, values = 8000, np.random.default_rng(1).normal(10.0, 3.0, (8000, 5))
    found = [estimate(row) for row in values]
    covered = sum(one.low <= 10.0 <= one.high for one in found) / trials
    assert covered == pytest.approx(LEVEL, abs=binomial(LEVEL, trials))


def test_paired_on_students_sleep():
    """R's t.test(extra ~ group, paired): t = −4.0621, p = 0.002833, interval −2.4598858 to −0.7001142."""
    found = paired(*SLEEP)
    assert found.estimate.mean == pytest.approx(-1.58)
    assert (found.estimate.low, found.estimate.high) == pytest.approx((-2.4598858, -0.7001142), abs=1e-7)
    assert found.t_test == pytest.approx(0.002833, abs=5e-7)
    back = paired(SLEEP[1], SLEEP[0])
    assert (back.estimate.mean, back.estimate.low) == pytest.approx((1.58, 0.7001142))
    assert (back.t_test, back.wilcoxon) == (found.t_test, found.wilcoxon)


def test_paired_on_darwins_maize():
    """Fisher: t = 2.148 on 14 degrees of freedom. Wilcoxon: the signs' 2¹⁵ ways, counted."""
    found = paired(MAIZE, [0] * 15)
    assert found.estimate.mean / found.estimate.se == pytest.approx(2.148, abs=5e-4)
    assert found.t_test == pytest.approx(t_tail(found.estimate.mean / found.estimate.se, 14), abs=1e-9)
    ranks = np.argsort(np.argsort(np.abs(MAIZE))) + 1
    sums = np.array(list(product((0, 1), repeat=15))) @ ranks
    smaller = min(ranks[np.array(MAIZE) > 0].sum(), ranks[np.array(MAIZE) < 0].sum())
    assert found.wilcoxon == pytest.approx(2 * np.mean(sums <= smaller))


def test_the_t_test_and_the_interval_agree():
    rng = np.random.default_rng(2)
    for _ in range(200):
        found = paired(rng.normal(0.6, 1.0, 8), rng.normal(0.0, 1.0, 8))
        assert (found.t_test < 1 - LEVEL) == (not found.estimate.low <= 0.0 <= found.estimate.high)


def test_a_missing_value_removes_its_pair_only():
    """A missing value on one side removes its pair and leaves the others aligned."""
    first, second = [1.0, None, 3.0, 4.0, 6.0, nan], [0.5, 2.0, nan, 1.0, 5.9, None]
    assert paired(first, second) == paired([1.0, 4.0, 6.0], [0.5, 1.0, 5.9])
    assert paired([None], [1.0]) is None and paired([], []) is None
    with pytest.raises(ValueError, match="shorter"):
        paired([1.0, 2.0], [1.0])


def test_what_both_runs_have_in_common_cancels():
    """Images that are hard for both runs do not hide the difference between them."""
    rng = np.random.default_rng(3)
    hard, gain = rng.normal(25.0, 5.0, 30), 0.3 + rng.normal(0.0, 0.2, 30)
    found = paired(hard + gain, hard)
    assert found.estimate.mean == pytest.approx(gain.mean())
    assert found.t_test < 1e-6 and found.wilcoxon < 1e-4
    assert stats.ttest_ind(hard + gain, hard).pvalue > 0.5


def test_without_a_difference_there_is_no_test():
    alone = paired([2.0], [1.0])
    assert (alone.estimate, alone.t_test, alone.wilcoxon) == (Estimate(1.0, None, None, None, 1), None, None)
    same = paired([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert (same.estimate.mean, same.estimate.se, same.t_test, same.wilcoxon) == (0.0, 0.0, None, None)


@pytest.mark.parametrize("amount", [1.0, 0.1, -1e-9])
def test_pairs_that_all_differ_by_the_same_amount_have_no_t_test(amount):
    """The spread is zero, or rounding: dividing by it would give p = 1e-30 from five images."""
    second = [0.3, 0.7, 1.1, 20.0, 5.0]
    for found in (paired([value + amount for value in second], second), paired([amount] * 5, [0.0] * 5)):
        assert found.t_test is None
        assert found.estimate.mean == pytest.approx(amount)
        assert found.wilcoxon == pytest.approx(2 / 2**5)
    spread = paired([amount * (1 + 1e-6 * i) for i in range(5)], [0.0] * 5)
    assert 0.0 < spread.t_test < 1e-12


def test_p_values_are_uniform_if_the_runs_do_not_differ():
    """Skewed, correlated scores whose differences are symmetric about 0, as for two runs of one method."""
    rng = np.random.default_rng(4)
    trials = 1000
    common = rng.exponential(3.0, (trials, 30))
    found = [paired(a, b) for a, b in zip(common + rng.normal(size=(trials, 30)), common + rng.normal(size=(trials, 30)), strict=True)]
    for name in ("t_test", "wilcoxon"):
        values = [getattr(one, name) for one in found]
        assert stats.kstest(values, "uniform").pvalue > 0.01, name
        for alpha in (0.05, 0.2):
            assert np.mean(np.array(values) <= alpha) == pytest.approx(alpha, abs=binomial(alpha, trials, 3.0)), name


def test_dictionaries_hold_plain_values_for_json():
    plain = paired(*SLEEP).to_dict()
    assert set(plain) == {"mean", "se", "low", "high", "n", "t_test", "wilcoxon"}
    assert {type(value) for value in plain.values()} == {float, int}
