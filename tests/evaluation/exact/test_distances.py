"""Distances of sets whose distance is known, and ranks of samples that are correct or wrong in a known way."""

from __future__ import annotations

import numpy as np
import pytest
from exact_cases import PRIORS, outcome
from lazy import Lazy

from diffusion_priors.evaluation.exact.distances import Reference, distances, leading, sliced_wasserstein, unit_directions
from diffusion_priors.evaluation.exact.mixtures import CovarianceFactor, GaussianMixture
from diffusion_priors.evaluation.exact.problem import ExactProblem
from diffusion_priors.evaluation.exact.sbc import histogram, quantities, ranks, uniformity
from diffusion_priors.solvers.unconditional import Unconditional

stats = Lazy("scipy.stats")

RNG = np.random.default_rng


def law(side: int = 3) -> GaussianMixture:
    """Two modes along the first axis, unequal axes around them."""
    means = np.zeros((2, side))
    means[:, 0] = (-1.5, 1.0)
    return GaussianMixture(np.array([0.4, 0.6]), means, [CovarianceFactor(np.diag(np.geomspace(0.2, 1.0, side)))] * 2)


def compared(samples: np.ndarray, reference: Reference) -> dict[str, float]:
    return distances(samples, reference, unit_directions(samples.shape[1], 200, RNG(5)))


def test_sliced_wasserstein_of_a_shift_is_its_mean_square_along_directions():
    """SW₂² = mean (uᵀd)², which is |d|²/D for uniform directions. It is 0 between a set and its permutation."""
    x, shift = RNG(0).normal(size=(300, 4)), np.array([1.0, 2.0, 0.0, -2.0])
    directions = unit_directions(4, 20_000, RNG(1))
    np.testing.assert_allclose(np.linalg.norm(directions, axis=0), 1.0)
    assert sliced_wasserstein(x, x[::-1], directions) == 0.0
    np.testing.assert_allclose(sliced_wasserstein(x, x[::-1] + shift, directions), 1.5, rtol=0.01)


def test_in_one_dimension_it_is_the_distance_between_gaussians():
    """W₂(N(a, s²), N(b, r²))² = (a − b)² + (s − r)², from quantiles of both."""
    z = stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000)[:, None]
    found = sliced_wasserstein(0.5 + 2.0 * z, -0.3 + 0.7 * z, np.ones((1, 1)))
    np.testing.assert_allclose(found, np.hypot(0.8, 1.3), rtol=1e-3)


def test_exact_samples_reach_the_floor_and_fill_the_regions():
    reference = Reference.of(law(), 2000, 3, RNG(0))
    found = compared(law().sample(2000, RNG(1)), reference)
    assert found["w2"] < 0.12
    assert found["mean"] < 4 / 2000**0.5
    assert found["covariance"] < 0.1
    assert abs(found["spread"] - 1.0) < 0.05
    assert abs(found["inside_50"] - 0.5) < 4 * (0.25 / 2000 + 0.25 / 4000) ** 0.5
    assert abs(found["inside_95"] - 0.95) < 4 * (0.0475 / 2000 + 0.0475 / 4000) ** 0.5


def test_the_shares_of_the_modes_are_compared_with_their_weights():
    """Modes far apart with weights 0.4 and 0.6: the total variation distance, and the share of the second."""
    exact = law()
    far = GaussianMixture(exact.weights, 10.0 * exact.means, exact.covariances)
    reference, z = Reference.of(far, 1000, 3, RNG(0)), RNG(1).normal(size=(1000, 3))
    for share in (0.0, 0.25, 0.4, 1.0):
        first = np.arange(1000) < 1000 * share
        found = compared(0.3 * z + np.where(first[:, None], far.means[0], far.means[1]), reference)
        assert found["weights"] == pytest.approx(abs(share - 0.4), abs=1e-9)
        assert found["heaviest"] == pytest.approx(1.0 - share, abs=1e-9)
    single = GaussianMixture(np.ones(1), exact.means[:1], exact.covariances[:1])
    assert not {"weights", "heaviest"} & compared(z, Reference.of(single, 1000, 3, RNG(0))).keys()


@pytest.mark.parametrize("most", [1, 2, 3])
def test_each_error_shows_in_the_value_that_measures_it(most):
    exact = law()
    reference = Reference.of(exact, 2000, most, RNG(0))
    x = exact.sample(2000, RNG(1))
    scale = np.trace(exact.covariance) ** 0.5
    moved, narrow, wide = (
        compared(other, reference) for other in (x + np.array([0.3, 0.0, 0.0]), exact.mean + 0.5 * (x - exact.mean), 2.0 * x)
    )
    assert moved["mean"] == pytest.approx(0.3 / scale, abs=0.03)
    assert moved["w2"] == pytest.approx(0.3 / scale, abs=0.05)
    assert narrow["spread"] == pytest.approx(0.5, abs=0.02)
    assert narrow["covariance"] == pytest.approx(0.75, abs=0.02)
    assert wide["spread"] == pytest.approx(2.0, abs=0.1)
    assert wide["inside_95"] < 0.85


def test_a_missing_mode_is_detected_although_every_sample_is_plausible():
    exact = law()
    reference = Reference.of(exact, 1000, 3, RNG(0))
    x = exact.sample(4000, RNG(1))
    one = compared(x[x[:, 0] > 0][:1000], reference)
    assert one["inside_95"] > 0.9
    assert one["w2"] > 0.4
    assert one["mean"] > 0.4


def test_leading_axes_have_the_largest_variance():
    covariance = np.diag([0.1, 3.0, 1.0])
    np.testing.assert_allclose(np.abs(leading(covariance, 2)), [[0, 0], [1, 0], [0, 1]])


def simulate(width: float, shift: float, count: int = 200, samples: int = 19, seed: int = 0):
    """Ranks of a ground truth from N(0, 1) among samples from N(shift, width²)."""
    rng = RNG(seed)
    return ranks(rng.normal(size=(count, 2)), shift + width * rng.normal(size=(count, samples, 2)), RNG(seed))


def test_ranks_of_the_correct_law_are_uniform_and_so_are_their_p_values():
    """Twice the smaller of two p-values is nearly uniform over repetitions: below 0.1 in about a tenth of them."""
    values = np.array([uniformity(simulate(1.0, 0.0, seed=seed), 19) for seed in range(300)])
    assert 0.04 < (values < 0.1).mean() < 0.17
    counts = sum(histogram(simulate(1.0, 0.0, seed=seed), 19, 10) for seed in range(100))
    assert stats.chisquare(counts[:, 0]).pvalue > 0.001


@pytest.mark.parametrize(("width", "shift"), [(0.6, 0.0), (1.7, 0.0), (1.0, 0.4)])
def test_ranks_of_a_wrong_law_are_not_uniform(width, shift):
    assert uniformity(simulate(width, shift), 19) < 1e-3


@pytest.mark.parametrize("rounding", [0.0, 1e-6, -1e-6])
def test_samples_that_are_the_truth_itself_count_by_chance(rounding):
    """Truth and samples are one of three values: ranks of exact draws are uniform, although most of them tie, up to rounding."""
    rng = RNG(0)
    truth, samples = rng.choice(3, (4000, 1)) * 1.0, rng.choice(3, (4000, 19, 1)) + rounding
    counts = histogram(ranks(truth, samples, RNG(1)), 19, 10)[:, 0]
    assert stats.chisquare(counts).pvalue > 0.01
    assert uniformity(ranks(truth, np.minimum(samples + 1.0, 2.0), RNG(1)), 19) < 1e-10


def test_the_shape_of_the_histogram_shows_the_error():
    """A U for too narrow, a hump for too wide, a slope for a shift (Talts et al. 2018, Fig. 4-6)."""
    narrow, wide, shifted = (histogram(simulate(*wrong, count=2000), 19, 10)[:, 0] for wrong in ((0.5, 0.0), (2.0, 0.0), (1.0, 0.5)))
    assert min(narrow[0], narrow[-1]) > 2 * narrow[4:6].max()
    assert max(wide[0], wide[-1]) < wide[4:6].min() / 2
    assert shifted[0] > 2 * shifted[-1]


def test_the_squared_residual_reveals_samples_that_ignore_y():
    """The ranks of prior samples are uniform in x, but not in ‖y − A x‖²."""
    rng = RNG(0)
    x, matrix = rng.normal(size=(400, 2)), np.array([[1.0, 1.0]])
    y = x @ matrix.T + 0.1 * rng.normal(size=(400, 1))
    samples = rng.normal(size=(400, 19, 2))
    own, other = (quantities(one, ((y[:, None] - one @ matrix.T) ** 2).sum(-1), np.eye(2)) for one in (x[:, None], samples))
    found = ranks(own[:, 0], other, RNG(1))
    assert uniformity(found[:, :2], 19) > 0.01
    assert uniformity(found, 19) < 1e-10


def test_only_the_squared_residual_reveals_the_unconditional_solver():
    found = outcome(PRIORS["gaussian"](2), Unconditional(), posteriors=1, samples=50)
    histograms = np.array(found.histograms(found.solved))
    assert histograms.shape == (3, 10)
    assert stats.chisquare(histograms[:2], axis=1).pvalue.min() > 1e-3
    assert stats.chisquare(histograms[2]).pvalue < 1e-10


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"posteriors": 0}, "exact_problem.posteriors"),
        ({"samples": 5}, "exact_problem.samples"),
        ({"ranks": 12}, "exact_problem.ranks"),
        ({"samples": 20, "ranks": 29}, "exact_problem.samples"),
        ({"axes": 0}, "exact_problem.axes"),
        ({"directions": 0}, "exact_problem.directions"),
    ],
)
def test_numbers_that_leave_nothing_to_compare_are_refused(wrong, message):
    sizes = {"posteriors": 1, "samples": 100, "measurements": 50, "ranks": 9} | wrong
    with pytest.raises(ValueError, match=message):
        ExactProblem("test", **sizes)


def test_diverged_samples_are_counted_and_the_others_compared():
    class Diverging(Unconditional):
        def step(self, state, step, problem):
            moved, x0, info = super().step(state, step, problem)
            moved.x[::3] = float("nan")
            return moved, x0, info

    found = outcome(PRIORS["gaussian"](2), Diverging(), posteriors=1, samples=60, measurements=0)
    assert found.cost.failed == 20
    assert np.isfinite(list(found.distances.values())[:-1]).all()
