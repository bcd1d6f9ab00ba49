"""Parts of DeepInverse as ours and ours as DeepInverse's, with equal results. Skipped where it is not installed."""

from __future__ import annotations

import pytest
import torch
from tiny_prior import tiny_prior

import diffusion_priors as dp

pytestmark = [
    pytest.mark.slow,  # importing DeepInverse takes 8 seconds
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
SHAPE = (2, 3, 16, 16)
VARIANCE = 0.04
"""Of a pixel in [0, 1] units."""


@pytest.fixture(scope="module")
def deepinv():
    return pytest.importorskip("deepinv")


@pytest.fixture(scope="module")
def wiener(deepinv):
    """E[x | x + σ n] of independent pixels with mean ½ and variance VARIANCE, in closed form, as a denoiser of DeepInverse."""

    class Wiener(deepinv.models.Denoiser):
        def forward(self, x, sigma, **_):
            sigma = self._handle_sigma(sigma, batch_size=len(x), ndim=x.ndim, dtype=x.dtype)
            return 0.5 + VARIANCE / (VARIANCE + sigma**2) * (x - 0.5)

    return Wiener()


def random(*shape, seed=0, low=0.0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * (1.0 - low) + low


def test_a_denoiser_of_deepinverse_is_a_prior_here_in_closed_form(wiener):
    """x̂0 = 4v/(4v + σ²) x_t in [-1, 1] units, and there and back again is the same denoiser, for a σ of each image too."""
    prior = dp.prior_from_deepinv(wiener, (16, 16), sigma_max=5.0, clip=False)
    level = prior.image_schedule.at(0.6)
    x = random(*SHAPE, low=-1.0)
    expected = 4.0 * VARIANCE / (4.0 * VARIANCE + 0.6**2) * x
    torch.testing.assert_close(dp.Denoiser(prior)(x, level).x0, expected, rtol=1e-5, atol=1e-6)
    back = dp.deepinv_denoiser(prior)
    for sigma in (0.1, torch.tensor(0.3), torch.tensor([0.2, 0.5])):
        torch.testing.assert_close(back(x, sigma), wiener(x, sigma), rtol=1e-5, atol=1e-6)


def test_a_prior_is_a_denoiser_there(deepinv):
    """D(x, σ) by hand from the network's ε̂ at the nearest level of a table, and its gradient."""
    prior = tiny_prior()
    found = dp.deepinv_denoiser(prior)
    assert isinstance(found, deepinv.models.Denoiser)
    x = random(*SHAPE).requires_grad_()
    level = prior.schedule.table[6]
    d = found(x, level.noise_to_signal / 2.0)
    noisy = level.alpha * (2.0 * x - 1.0)
    eps = prior.network(noisy, torch.full((2,), 6))
    torch.testing.assert_close(d, (((noisy - level.sigma * eps) / level.alpha).clamp(-1.0, 1.0) + 1.0) / 2.0, rtol=1e-5, atol=1e-6)
    (gradient,) = torch.autograd.grad(d.sum(), x)
    assert gradient.abs().sum() > 0.0


OPERATORS = {
    "a mask of each image": ("inpaint_random", {}),
    "Fourier": ("deblur_gaussian", {}),
    "a complex y": ("mri", {}),
    "fewer pixels": ("super_resolution", {}),
    "no decomposition": ("tomography", {"angles": 8}),
}


@pytest.mark.parametrize(("name", "settings"), OPERATORS.values(), ids=OPERATORS)
def test_a_linear_operator_is_a_linear_physics_there(deepinv, name, settings):
    """A and Aᴴ are equal, A⁺ and the proximal step agree, y is (y + A 1)/2, and the operator comes back."""
    operator = dp.operator(name, **settings)
    physics = dp.deepinv_physics(operator, SHAPE, dp.noise_model("gaussian", sigma=0.1))
    assert isinstance(physics, deepinv.physics.DecomposablePhysics if operator.has_spectrum else deepinv.physics.LinearPhysics)
    x, z = random(*SHAPE), random(*SHAPE, seed=1)
    y = operator(x)
    torch.testing.assert_close(physics.A(x), y, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(physics.A_adjoint(y), operator.adjoint(y), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(physics.A_vjp(x, y), operator.adjoint(y), rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(physics.A(z.requires_grad_()), z, y)  # as DPS takes it
    torch.testing.assert_close(gradient, operator.adjoint(y), rtol=1e-4, atol=1e-5)
    z = z.detach()
    torch.testing.assert_close((operator(2.0 * x - 1.0) + operator(torch.ones_like(x))) / 2.0, physics.A(x), rtol=1e-4, atol=1e-5)
    physics.set_ls_solver("CG", 500, 1e-6) if not operator.has_spectrum else None
    proximal = physics.prox_l2(z, y, gamma=1.0 / 0.3, **({} if operator.has_spectrum else {"solver": "CG"}))
    torch.testing.assert_close(proximal, z + operator.tikhonov(y - operator(z), 0.3), rtol=1e-3, atol=1e-4)
    assert float(physics.noise_model.sigma) == pytest.approx(0.05)
    if not operator.random:  # masks of two images are no operator for any images
        back = dp.operator_from_deepinv(physics)
        assert back.linear and torch.equal(back.draw(x, [None, None])(x), physics.A(x))


def test_an_operator_that_is_not_linear_is_a_physics_there(deepinv):
    operator = dp.operator("hdr")
    physics = dp.deepinv_physics(operator, SHAPE, dp.noise_model("gaussian", sigma=0.1))
    x = random(*SHAPE)
    assert type(physics) is deepinv.physics.Physics and torch.equal(physics.A(x), operator(2.0 * x - 1.0))
    assert float(physics.noise_model.sigma) == pytest.approx(0.1)
    back = dp.operator_from_deepinv(physics).draw(x, [None, None])
    torch.testing.assert_close(back(2.0 * x - 1.0), physics.A(x), rtol=1e-5, atol=1e-6)


def test_the_mask_is_that_of_a_restoration(wiener):
    """The same seed and ids: what restore measured, DeepInverse restores with the same A."""
    prior = dp.prior_from_deepinv(wiener, (16, 16), sigma_max=5.0)
    image = random(*SHAPE, low=-1.0)
    keys = {"seed": 4, "ids": ["a", "b"]}
    result = dp.restore(prior, image=image, operator="inpaint_random", steps=2, progress=False, **keys)
    physics = dp.deepinv_physics(dp.operator("inpaint_random"), SHAPE, **keys)
    assert torch.equal(result.y != 0.0, (physics.operator.mask > 0.0).expand(SHAPE))


def test_their_solver_gives_the_same_on_our_parts_as_on_theirs(deepinv, wiener):
    """DDRM, which needs the denoiser and the decomposition, with one mask and the same noise."""
    operator = dp.operator("inpaint_box", size=[6, 6])
    ours = dp.deepinv_physics(operator, (1, *SHAPE[1:]), dp.noise_model("gaussian", sigma=0.1))
    theirs = deepinv.physics.Inpainting(SHAPE[1:], mask=operator.mask[0].expand(3, -1, -1), noise_model=deepinv.physics.GaussianNoise(0.05))
    y = theirs.A(random(1, *SHAPE[1:]))
    prior = dp.prior_from_deepinv(wiener, (16, 16), sigma_max=5.0, clip=False)
    sigmas = torch.linspace(1.0, 0.01, 8).tolist()
    restored = [
        deepinv.sampling.DDRM(denoiser, sigmas)(y, physics, seed=7)
        for denoiser, physics in ((wiener, theirs), (dp.deepinv_denoiser(prior), ours))
    ]
    torch.testing.assert_close(*restored, rtol=1e-4, atol=1e-5)


def test_what_has_no_counterpart_is_refused(deepinv):
    with pytest.raises(ValueError, match=r"Poisson noise has no counterpart in DeepInverse; leave out noise_model="):
        dp.deepinv_physics(dp.operator("inpaint_box"), SHAPE, dp.noise_model("poisson"))
