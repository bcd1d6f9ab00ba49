"""One step of every solver against its formula in plain matrices, for a Gaussian prior and the noise captured."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from math import sqrt

import closed_form
import numpy as np
import pytest
import torch
from closed_form import linear_bars
from gaussian_prior import CASES, OUTPUTS, TRANSITIONS, gaussian_prior, make_setting, random_law

from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.levels import CLEAN, NoiseLevel
from diffusion_priors.diffusion.schedules import Linear
from diffusion_priors.diffusion.transitions import DDIM
from diffusion_priors.solvers.annealing import Likelihood, Power
from diffusion_priors.solvers.base import Guided, Step, Walk
from diffusion_priors.solvers.dps import DPS
from diffusion_priors.solvers.dps_score import DPSScore
from diffusion_priors.solvers.score_ald import ScoreALD
from diffusion_priors.solvers.score_ald_langevin import ScoreALDLangevin
from diffusion_priors.solvers.sdedit import SDEdit
from diffusion_priors.solvers.tweedie import Tweedie
from diffusion_priors.solvers.unconditional import Unconditional

BARS = linear_bars()
JUMPS = [(999, 899), (500, 499), (300, 40), (40, None), (0, None)]
"""Levels left and reached, None for the noise-free end."""


@pytest.fixture(params=CASES)
def case(request):
    return request.param


@pytest.fixture(params=TRANSITIONS)
def transition(request):
    """(the project's transition, its numpy update)."""
    return TRANSITIONS[request.param]


# Transition x jump is tested in test_transitions. Here every operator meets two jumps, and every transition one operator.
PAIRS = [(case, "ddpm, small", jump) for case in CASES for jump in ((500, 499), (40, None))]
PAIRS += [("random mask", kind, (999, 899)) for kind in TRANSITIONS]


@pytest.fixture(params=PAIRS, ids=str)
def move(request):
    """(operator case, (the project's transition, its numpy update), jump)."""
    case, kind, jump = request.param
    return case, TRANSITIONS[kind], jump


@pytest.fixture(params=JUMPS, ids=str)
def jump(request):
    return request.param


@cache
def setting_of(case, transition=TRANSITIONS["ddpm, small"][0]):
    """No test changes a setting: the noise is each test's own."""
    return make_setting(case, sampler=transition)


def levels_of(setting, jump):
    now, then = jump
    return setting.table[now], CLEAN if then is None else setting.table[then]


def bars_of(jump):
    now, then = jump
    return BARS[now], 1.0 if then is None else BARS[then]


def states(setting, jump, draws=1):
    """x_t (B, D) about as they occur at the level left, and `draws` arrays of noise."""
    rng = np.random.default_rng(7)
    bar = bars_of(jump)[0]
    batch, side = len(setting.matrices), setting.law.side
    x0 = rng.multivariate_normal(setting.law.mean, setting.law.covariance, size=batch)
    return sqrt(bar) * x0 + sqrt(1 - bar) * rng.normal(size=(batch, side)), rng.normal(size=(draws, batch, side))


def run_step(solver, setting, jump, x, z):
    """The project's step on numpy rows: x at the next level, x̂0 and the number of draws it took."""
    problem = setting.record(z)
    state = setting.tensor(x)
    moved, x0, _ = solver.step(Walk(state) if isinstance(solver, Guided) else state, Step(*levels_of(setting, jump)), problem)
    return solver.image(moved).flatten(1).numpy(), x0.flatten(1).numpy(), problem.rng.taken


def assert_same(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9 * np.abs(wanted).max())


@pytest.mark.parametrize("kind", OUTPUTS)
@pytest.mark.parametrize("t", [0, 40, 500, 999])
def test_denoiser_of_a_gaussian_prior_is_the_conditional_mean(kind, t):
    """Network, preconditioning and Denoiser together give E[x0 | x_t]; eps and score follow from it by the level."""
    law = random_law(6)
    prior = gaussian_prior(law, (1, 2, 3), Linear(), kind)
    setting = setting_of("identity")
    level, bar = prior.image_schedule.level(t), BARS[t]
    x = np.random.default_rng(1).normal(size=(5, 6))
    tensor = setting.tensor(x.reshape(-1, 2)[:3]).new_tensor(x).view(5, 1, 2, 3)
    x0 = Denoiser(prior)(tensor, level).x0
    # α and σ enter squared and divided: at t = 0, σ² = 1e-4 of x loses four digits to a score, and no more
    np.testing.assert_allclose(x0.flatten(1), law.x0(x, bar), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(level.score(tensor, x0).flatten(1), law.score(x, bar), rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(level.eps(tensor, x0).flatten(1), -sqrt(1 - bar) * law.score(x, bar), rtol=1e-7, atol=1e-7)


def test_unconditional_step_is_the_reverse_update(move):
    case, transition, jump = move
    setting = setting_of(case, transition[0])
    x, z = states(setting, jump)
    moved, x0, _ = run_step(Unconditional(), setting, jump, x, z)
    bar, bar_next = bars_of(jump)
    assert_same(moved, transition[1](x, setting.law.score(x, bar), bar, bar_next, z[0]))
    assert_same(x0, setting.law.x0(x, bar))


def test_noise_is_drawn_once_a_step_and_not_on_the_way_to_the_clean_end(transition, jump):
    setting = setting_of("random mask", transition[0])
    x, z = states(setting, jump)
    taken = run_step(Unconditional(), setting, jump, x, z)[2]
    deterministic = getattr(transition[0], "eta", 1.0) == 0.0
    assert taken == (0 if deterministic or jump[1] is None else 1)


def test_sdedit_walks_with_the_unconditional_step(transition):
    jump = (500, 420)
    setting = setting_of("blur", transition[0])
    x, z = states(setting, jump)
    moved, _, _ = run_step(SDEdit(), setting, jump, x, z)
    assert_same(moved, transition[1](x, setting.law.score(x, BARS[500]), BARS[500], BARS[420], z[0]))


@pytest.mark.parametrize("solver", [SDEdit(), Tweedie()], ids=lambda s: type(s).__name__)
def test_methods_that_noise_the_measurement_start_from_it_or_from_its_pseudo_inverse(case, solver):
    """x_{t*} = √ᾱ p + √(1 − ᾱ) z with p = y where y is an image like x0, else A⁺y (numpy's pinv)."""
    setting = setting_of(case)
    rng = np.random.default_rng(3)
    z = rng.normal(size=(1, 3, setting.law.side))
    start = solver.image(solver.init(setting.record(z), setting.table[300])).flatten(1).numpy()
    same_size = setting.y.shape[1] == setting.law.side
    images = setting.y if same_size else np.stack([np.linalg.pinv(a) @ y for a, y in zip(setting.matrices, setting.y, strict=True)])
    assert_same(start, sqrt(BARS[300]) * images + sqrt(1 - BARS[300]) * z[0])


@pytest.mark.parametrize("solver", [Unconditional(), DPS(), DPSScore(), ScoreALD(Likelihood())], ids=lambda s: type(s).__name__)
def test_other_methods_start_from_noise_alone(solver):
    setting = setting_of("blur")
    z = np.random.default_rng(3).normal(size=(1, 3, setting.law.side))
    assert_same(solver.image(solver.init(setting.record(z), setting.table[999])).flatten(1).numpy(), sqrt(1 - BARS[999]) * z[0])


def test_langevin_starts_from_noise_at_the_level_of_x_over_alpha():
    setting = setting_of("blur")
    z = np.random.default_rng(3).normal(size=(1, 3, setting.law.side))
    start = ScoreALDLangevin(Likelihood()).init(setting.record(z), setting.table[999]).flatten(1).numpy()
    assert_same(start, sqrt((1 - BARS[999]) / BARS[999]) * z[0])


@pytest.mark.parametrize("t", [1, 41, 500, 1000])
def test_tweedie_is_one_denoising_at_its_t(case, t):
    solver, setting = Tweedie(t), setting_of(case)
    (step,), bar = solver.plan(None, setting.schedule), BARS[t - 1]
    assert step.then == CLEAN
    x, z = states(setting, (t - 1, None))
    moved, x0, _ = solver.step(setting.tensor(x), step, setting.record(z))
    tweedie = (x + (1 - bar) * setting.law.score(x, bar)) / sqrt(bar)  # the paper's Eq. 3
    assert_same(moved.flatten(1).numpy(), tweedie)
    assert_same(x0.flatten(1).numpy(), tweedie)


ANNEALINGS = {
    "likelihood": (Likelihood(), lambda variance, sigma_y: 0.5 / (sigma_y**2 + variance)),
    "likelihood, scaled": (Likelihood(0.3, 2.0), lambda variance, sigma_y: 0.15 / (sigma_y**2 + 4.0 * variance)),
    "constant": (Power(0.02), lambda variance, sigma_y: 0.02),
    "power": (Power(0.01, 1.5), lambda variance, sigma_y: 0.01 * variance**0.75),
}


@pytest.fixture(params=ANNEALINGS)
def annealing(request):
    """(the project's annealing, λ as a function of the level's σ² and σ_y)."""
    return ANNEALINGS[request.param]


LIKELIHOOD = ANNEALINGS["likelihood"]


def pulled_score(setting, annealing, x, bar):
    """s̃ = s − λ_t ∇ ‖A x_t − y‖₂² = s − 2 λ_t Aᵀ(A x_t − y) per image (the paper's Eq. 5)."""
    gradients = [2.0 * a.T @ (a @ row - y) for a, row, y in zip(setting.matrices, x, setting.y, strict=True)]
    weights = [annealing(1.0 - bar, sigma) for sigma in setting.sigma_y]
    return setting.law.score(x, bar) - np.array(weights)[:, None] * np.stack(gradients)


def test_score_ald_step_is_the_reverse_update_with_the_augmented_score(move):
    case, transition, jump = move
    setting = setting_of(case, transition[0])
    x, z = states(setting, jump)
    moved, x0, _ = run_step(ScoreALD(LIKELIHOOD[0]), setting, jump, x, z)
    bar, bar_next = bars_of(jump)
    assert_same(moved, transition[1](x, pulled_score(setting, LIKELIHOOD[1], x, bar), bar, bar_next, z[0]))
    assert_same(x0, setting.law.x0(x, bar))


def test_score_ald_weighs_the_measurement_by_its_annealing_factor(annealing, jump):
    """λ_t from the level's σ_t and each image's own σ_y."""
    setting = setting_of("random mask")
    x, z = states(setting, jump)
    moved, _, _ = run_step(ScoreALD(annealing[0]), setting, jump, x, z)
    bar, bar_next = bars_of(jump)
    assert_same(moved, closed_form.ddpm(x, pulled_score(setting, annealing[1], x, bar), bar, bar_next, z[0]))


LANGEVIN = [(case, "likelihood", jump) for case in CASES for jump in ((500, 499), (40, None))]
LANGEVIN += [("random mask", kind, (300, 40)) for kind in ANNEALINGS]


@pytest.mark.parametrize(("case", "kind", "jump"), LANGEVIN, ids=str)
def test_langevin_step_is_jalals_formula_and_ends_with_a_denoising(case, kind, jump):
    """u = x_t/√ᾱ_t, whose density is N(m, S + σ̃² I); λ sees σ̃, the level in u's units. Three steps on the level."""
    inner, annealing = 3, ANNEALINGS[kind]
    setting = setting_of(case)
    x, z = states(setting, jump, draws=inner)
    bar, bar_next = bars_of(jump)
    u = x / sqrt(bar)
    moved, _, taken = run_step(ScoreALDLangevin(annealing[0], step_size=0.3, inner=inner), setting, jump, u, z)

    for b, (a, y, sigma) in enumerate(zip(setting.matrices, setting.y, setting.sigma_y, strict=True)):

        def pull(rows, variance, a=a, y=y, sigma=sigma):
            return -2.0 * annealing[1](variance, sigma) * (rows @ a.T - y) @ a

        weight = annealing[1]((1.0 - bar) / bar, sigma)
        wanted = closed_form.langevin(setting.law, u[b : b + 1], bar, 0.3, weight, pull, [draw[b] for draw in z])
        if bar_next == 1.0:
            wanted = setting.law.x0(sqrt(bar) * wanted, bar)
        np.testing.assert_allclose(moved[b : b + 1], wanted, rtol=1e-9, atol=1e-9 * max(np.abs(u).max(), np.abs(wanted).max()))
    assert taken == inner


def guidance(setting, x, bar):
    """∇_{x_t} ‖y − A x̂0(x_t)‖₂ per image."""
    rows = [
        closed_form.residual_gradient(setting.law, row[None], bar, a, y) for a, row, y in zip(setting.matrices, x, setting.y, strict=True)
    ]
    return np.concatenate(rows)


def test_dps_step_subtracts_the_gradient_of_the_residual_norm(move):
    case, transition, jump = move
    zeta = 0.4
    setting = setting_of(case, transition[0])
    x, z = states(setting, jump)
    moved, x0, _ = run_step(DPS(zeta, per_level=False, limit=False), setting, jump, x, z)
    bar, bar_next = bars_of(jump)
    unconditional = transition[1](x, setting.law.score(x, bar), bar, bar_next, z[0])
    assert_same(moved, unconditional - zeta * guidance(setting, x, bar))
    assert_same(x0, setting.law.x0(x, bar))


def crossed(jump) -> float:
    """How many levels of the linear schedule of a thousand steps a jump crosses."""
    return jump[0] - (-1 if jump[1] is None else jump[1])


def test_dps_takes_zeta_for_each_level_crossed_up_to_where_the_linearised_residual_vanishes(move):
    """η = min(ζ n, ‖r‖/‖∇‖r‖‖²), image by image; the limit is Polyak's step."""
    case, transition, jump = move
    zeta = 0.01
    setting = setting_of(case, transition[0])
    x, z = states(setting, jump)
    bar, bar_next = bars_of(jump)
    unconditional = transition[1](x, setting.law.score(x, bar), bar, bar_next, z[0])
    gradient = guidance(setting, x, bar)
    norms = [np.linalg.norm(y - a @ row) for a, y, row in zip(setting.matrices, setting.y, setting.law.x0(x, bar), strict=True)]
    limit = np.array(norms) / np.square(gradient).sum(1)

    free = run_step(DPS(zeta, limit=False), setting, jump, x, z)[0]
    assert_same(free, unconditional - zeta * crossed(jump) * gradient)
    limited = run_step(DPS(zeta), setting, jump, x, z)[0]
    assert_same(limited, unconditional - np.minimum(zeta * crossed(jump), limit)[:, None] * gradient)
    far = run_step(DPS(1e9), setting, jump, x, z)[0]
    assert_same(far, unconditional - limit[:, None] * gradient)


@pytest.mark.parametrize("t", [999, 998, 500, 1, 0])
def test_dps_on_every_level_of_a_thousand_is_the_official_step(t):
    """n = 1: with its thousand steps the default rule and the official code take the same step."""
    setting, jump = setting_of("blur"), (t, t - 1 if t else None)
    x, z = states(setting, jump)
    ours, official = (run_step(DPS(0.01, per_level, limit=False), setting, jump, x, z)[0] for per_level in (True, False))
    np.testing.assert_allclose(ours, official, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("zeta", [0.002, 1e9], ids=["levels", "limit"])
@pytest.mark.parametrize("case", ["box", "blur"])
def test_dps_takes_the_same_step_for_a_state_of_another_scale(case, zeta):
    """x/α at (1, σ/α) is the state of a VE schedule with the same noise: the step in x/α is that in x, divided by α."""
    setting = setting_of(case, DDIM())
    now, then = setting.table[600], setting.table[450]
    x = setting.tensor(states(setting, (600, 450))[0])

    class Scaled(Denoiser):
        """The same prior, seen in x/α."""

        def forward(self, x, level):
            return super().forward(now.alpha * x, now)

    prior = gaussian_prior(setting.law, CASES[case].shape)
    scaled = replace(setting.problem, denoiser=Scaled(prior))
    levels = [NoiseLevel(level.t, 1.0, level.noise_to_signal) for level in (now, then)]
    plain = DPS(zeta).step(Walk(x), Step(now, then), setting.problem)[0].x
    other = DPS(zeta).step(Walk(x / now.alpha), Step(*levels), scaled)[0].x
    torch.testing.assert_close(other * then.alpha, plain, rtol=1e-9, atol=1e-12)


def test_dps_score_step_is_the_reverse_update_with_the_augmented_score(move):
    """s̃ = s − ζ/‖r‖ ∇‖r‖² (the paper's Eq. 6), the gradient of the square written out: −2 Jᵀ Aᵀ r."""
    case, transition, jump = move
    zeta = 50.0
    setting = setting_of(case, transition[0])
    x, z = states(setting, jump)
    moved, x0, _ = run_step(DPSScore(zeta), setting, jump, x, z)
    bar, bar_next = bars_of(jump)
    r = np.stack([y - a @ row for a, y, row in zip(setting.matrices, setting.y, setting.law.x0(x, bar), strict=True)])
    square = np.stack([-2.0 * setting.law.jacobian(bar).T @ a.T @ row for a, row in zip(setting.matrices, r, strict=True)])
    score = setting.law.score(x, bar) - zeta / np.linalg.norm(r, axis=1, keepdims=True) * square
    assert_same(moved, transition[1](x, score, bar, bar_next, z[0]))
    assert_same(x0, setting.law.x0(x, bar))


def test_closed_form_gradient_agrees_with_finite_differences():
    """The numpy gradient the DPS tests lean on, by central differences of the norm itself."""
    setting, jump = setting_of("box"), (300, 299)
    x, _ = states(setting, jump)
    bar, h = BARS[300], 1e-5
    matrix, y, row = setting.matrices[0], setting.y[0], x[:1]

    def norm(point):
        return np.linalg.norm(y - matrix @ setting.law.x0(point, bar)[0])

    steps = h * np.eye(setting.law.side)
    numeric = [(norm(row + step) - norm(row - step)) / (2 * h) for step in steps]
    np.testing.assert_allclose(closed_form.residual_gradient(setting.law, row, bar, matrix, y)[0], numeric, atol=1e-8)


def test_dps_score_is_dps_with_zeta_two_zeta_beta_over_root_alpha(jump):
    """For FixedSmall and an x̂0 that is not clamped, ζ_DPS = 2 ζ β_t/√α_t takes the same step, α_t = ᾱ_t/ᾱ_s."""
    setting = setting_of("super-resolution")
    x, z = states(setting, jump)
    bar, bar_next = bars_of(jump)
    alpha = bar / bar_next
    zeta = 50.0
    score, _, _ = run_step(DPSScore(zeta), setting, jump, x, z)
    official = DPS(2.0 * zeta * (1.0 - alpha) / sqrt(alpha), per_level=False, limit=False)
    plain, _, _ = run_step(official, setting, jump, x, z)
    assert_same(score, plain)


@pytest.mark.parametrize(
    "solver",
    [DPS(0.0), DPSScore(0.0), ScoreALD(Likelihood(scale=0.0)), ScoreALD(Power(scale=0.0))],
    ids=lambda s: type(s).__name__,
)
def test_no_guidance_leaves_the_unconditional_step(case, solver):
    jump = (500, 420)
    setting = setting_of(case)
    x, z = states(setting, jump)
    np.testing.assert_array_equal(
        run_step(solver, setting, jump, x, z)[0],
        run_step(Unconditional(), setting, jump, x, z)[0],
    )


def test_guidance_leaves_the_denoised_image_alone():
    """x̂0, which observers see and an early stop returns, is not moved by the step that was made with it."""
    setting = setting_of("box")
    x, z = states(setting, (0, None))
    for solver in (DPS(1.0), DPSScore(50.0), ScoreALD(Likelihood())):
        _, x0, _ = run_step(solver, setting, (0, None), x, z)
        assert_same(x0, setting.law.x0(x, BARS[0]))
