"""DDRM and DiffPIR: one step and the start against formulas in dense matrices, for a Gaussian prior and the noise captured."""

from __future__ import annotations

from functools import cache
from math import sqrt

import numpy as np
import pytest
from closed_form import linear_bars
from gaussian_prior import CASES, bars_of, make_setting, state, step_of

from diffusion_priors.diffusion.samplers import Heun
from diffusion_priors.diffusion.transitions import Renoise
from diffusion_priors.operators.blur import DeblurKernel, DeblurMotion
from diffusion_priors.operators.identity import Identity
from diffusion_priors.operators.noise_models import Gaussian
from diffusion_priors.solvers.base import NotApplicable, Walk
from diffusion_priors.solvers.ddrm import DDRM
from diffusion_priors.solvers.diffpir import DiffPIR

BARS = linear_bars()
JUMPS = [(999, 899), (500, 320), (300, 40), (40, 4), (40, None)]
"""Levels left and reached, None for the noise-free end."""
SIGMAS = [(0.1, 0.2, 0.4), (0.0, 0.0, 0.0)]


@cache
def setting_of(case, sigma_y=SIGMAS[0], sampler=None):
    return make_setting(case, sigma_y=sigma_y, sampler=sampler)


def ddrm(matrix, y, sigma_y, x0, eps, z, bar, eta, eta_b):
    """The three branches of Kawar et al. 2022, Eq. 8, in x̄ = x/α, by the eigenvectors of AᵀA; → x."""
    squares, v = np.linalg.eigh(matrix.T @ matrix)
    s = np.sqrt(np.where(squares > 1e-10 * squares.max(), squares, 0.0))
    u = sqrt((1 - bar) / bar)
    x0, eps, z = v.T @ x0, v.T @ eps, v.T @ z
    y_bar = v.T @ np.linalg.pinv(matrix) @ y
    moved = np.empty_like(x0)
    for i, si in enumerate(s):
        if si == 0.0:
            moved[i] = x0[i] + sqrt(1 - eta**2) * u * eps[i] + eta * u * z[i]
        elif si * u < sigma_y:
            moved[i] = x0[i] + sqrt(1 - eta**2) * u * si * (y_bar[i] - x0[i]) / sigma_y + eta * u * z[i]
        else:
            moved[i] = (1 - eta_b) * x0[i] + eta_b * y_bar[i] + sqrt(u**2 - eta_b**2 * sigma_y**2 / si**2) * z[i]
    return sqrt(bar) * v @ moved


@pytest.mark.parametrize("sigma_y", SIGMAS, ids=["noise", "no noise"])
@pytest.mark.parametrize("case", CASES)
def test_ddrm_step_is_the_papers_three_branches(case, sigma_y):
    setting = setting_of(case, sigma_y)
    for jump in JUMPS:
        bar, bar_next = bars_of(jump)
        x, z = state(setting, bar)
        x0 = setting.law.x0(x, bar)
        eps = (x - sqrt(bar) * x0) / sqrt(1 - bar)
        for eta, eta_b in ((0.85, 1.0), (0.3, 0.6)):
            moved, seen, _ = DDRM(eta, eta_b).step(setting.tensor(x), step_of(setting, jump), setting.record(z))
            rows = zip(setting.matrices, setting.y, setting.sigma_y, x0, eps, z[0], strict=True)
            wanted = np.stack([ddrm(*row, bar_next, eta, eta_b) for row in rows])
            np.testing.assert_allclose(moved.flatten(1), wanted, rtol=1e-8, atol=1e-8, err_msg=str((jump, eta)))
            np.testing.assert_allclose(seen.flatten(1), x0, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_ddrm_starts_from_what_was_measured_and_the_noise_that_is_missing(case):
    """x̄_T ~ N(ȳ, u² − σ_y²/s²) where s u ≥ σ_y, N(0, u²) elsewhere (Kawar et al. 2022, Eq. 7)."""
    setting = setting_of(case)
    bar = BARS[500]
    _, z = state(setting, bar)
    found = DDRM().init(setting.record(z), setting.table[500]).flatten(1).numpy()
    for matrix, y, sigma, draw, row in zip(setting.matrices, setting.y, setting.sigma_y, z[0], found, strict=True):
        squares, v = np.linalg.eigh(matrix.T @ matrix)
        s = np.sqrt(np.where(squares > 1e-10 * squares.max(), squares, 0.0))
        u = sqrt((1 - bar) / bar)
        seen = (s > 0) & (s * u >= sigma)
        left = np.where(seen, u**2 - sigma**2 / np.where(seen, s, 1.0) ** 2, u**2)
        wanted = v @ (np.where(seen, v.T @ np.linalg.pinv(matrix) @ y, 0.0) + np.sqrt(left) * (v.T @ draw))
        np.testing.assert_allclose(row, sqrt(bar) * wanted, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("case", CASES)
def test_without_noise_ddrm_ends_with_what_was_measured(case):
    """The last step keeps A x = y: s u = σ_y = 0 belongs to the third branch."""
    setting = setting_of(case, SIGMAS[1])
    x, z = state(setting, BARS[40])
    moved, *_ = DDRM().step(setting.tensor(x), step_of(setting, (40, None)), setting.record(z))
    for matrix, y, row in zip(setting.matrices, setting.y, moved.flatten(1).numpy(), strict=True):
        np.testing.assert_allclose(matrix @ row, y, atol=1e-8)


@pytest.mark.parametrize("case", CASES)
def test_diffpir_step_is_the_proximal_point_and_the_papers_move(case):
    """x̃0 = (AᵀA + ρ I)⁻¹(Aᵀy + ρ x̂0), ρ = λ σ_y²/u²; x_s = α_s x̃0 + σ_s (√(1 − ζ) ε̃ + √ζ z)."""
    lam, zeta = 3.0, 0.4
    setting = setting_of(case, sampler=Renoise(zeta))
    for jump in JUMPS:
        bar, bar_next = bars_of(jump)
        x, z = state(setting, bar)
        x0 = setting.law.x0(x, bar)
        moved, seen, _ = DiffPIR(lam).step(Walk(setting.tensor(x)), step_of(setting, jump), setting.record(z))
        for b, (matrix, y, sigma) in enumerate(zip(setting.matrices, setting.y, setting.sigma_y, strict=True)):
            rho = lam * sigma**2 * bar / (1 - bar)
            near = np.linalg.solve(matrix.T @ matrix + rho * np.eye(len(x0[b])), matrix.T @ y + rho * x0[b])
            eps = (x[b] - sqrt(bar) * near) / sqrt(1 - bar)
            wanted = sqrt(bar_next) * near + sqrt(1 - bar_next) * (sqrt(1 - zeta) * eps + sqrt(zeta) * z[0, b])
            np.testing.assert_allclose(moved.x[b].flatten(), wanted, rtol=1e-6, atol=1e-6, err_msg=str(jump))
            np.testing.assert_allclose(seen[b].flatten(), near, rtol=1e-6, atol=1e-6)


def test_without_noise_diffpir_projects_onto_the_measurement():
    for case in CASES:
        setting = setting_of(case, SIGMAS[1])
        x, _ = state(setting, BARS[300])
        denoised = DiffPIR().estimate(setting.tensor(x), setting.table[300], setting.problem)
        for matrix, y, row in zip(setting.matrices, setting.y, denoised.x0.flatten(1).numpy(), strict=True):
            np.testing.assert_allclose(matrix @ row, y, atol=1e-6)


# What a solver cannot take.


def test_an_operator_without_a_spectrum_is_not_applicable_to_ddrm():
    with pytest.raises(NotApplicable, match=r"DDRM needs an operator with a known singular value decomposition.*DeblurMotion"):
        DDRM().check(DeblurMotion(), Gaussian(), Renoise())
    DDRM().check(DeblurMotion(boundary="circular"), Gaussian(), Renoise())


def test_a_kernel_file_has_a_spectrum_only_with_a_circular_boundary(tmp_path):
    np.save(tmp_path / "kernel.npy", np.full((3, 3), 1 / 9))
    for boundary, applicable in (("circular", True), ("reflect", False)):
        operator = DeblurKernel(str(tmp_path / "kernel.npy"), boundary)
        assert operator.has_spectrum is applicable


def test_a_solver_that_needs_a_density_of_the_move_refuses_a_sampler_without_one():
    class Particles(DDRM):
        requires = ()
        sampler_type = Renoise

    with pytest.raises(NotApplicable, match="Heun has none; use sampler=ddpm"):
        Particles().check(Identity(), Gaussian(), Heun())
    Particles().check(Identity(), Gaussian(), Renoise())


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: DDRM(eta=1.2), "eta"),
        (lambda: DDRM(eta_b=-0.1), "eta_b"),
        (lambda: DDRM(cutoff=-1.0), "cutoff"),
        (lambda: DiffPIR(0.0), "lam"),
    ],
)
def test_values_out_of_bounds_are_refused(make, key):
    with pytest.raises(ValueError, match=rf"set solver\.{key}"):
        make()
