"""Singular value decompositions against NumPy's, for every operator of conf/operator that has one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from operator_cases import ALL, WITH_SPECTRUM, components, dense, generators, norms, random_images

from diffusion_priors.operators.kspace_masks import RandomColumns
from diffusion_priors.operators.mri import MRI

every_spectrum = pytest.mark.parametrize("case", WITH_SPECTRUM, ids=str)


def test_an_operator_knows_whether_it_has_a_spectrum(tmp_path):
    """One without refuses to give one, in words."""
    for case in ALL:
        operator = case.drawn(random_images(1, 1, *case.sides()), tmp_path)
        assert operator.has_spectrum == (case in WITH_SPECTRUM), case
        if operator.linear and not operator.has_spectrum:
            with pytest.raises(NotImplementedError, match="has no spectrum"):
                operator.spectrum()


@every_spectrum
def test_a_spectrum_is_the_singular_value_decomposition(case, tmp_path):
    """V is orthogonal, s holds NumPy's singular values (0 below the cutoff), A = U S Vᴴ and UᴴU is 1 where s > 0."""
    x = random_images(1, 2, *case.sides(seed=5, most=20))
    operator = case.drawn(x, tmp_path)
    spectrum = operator.spectrum()
    matrix, count = dense(operator, channels=2).numpy(), x.numel()
    units = torch.eye(count, dtype=torch.float64).view(count, *x.shape[1:])
    v = spectrum.synthesise(units).flatten(1).T.numpy()
    np.testing.assert_allclose(v.T @ v, np.eye(count), atol=1e-12)
    np.testing.assert_allclose(spectrum.analyse(units).flatten(1).numpy(), v, atol=1e-12)

    s = spectrum.s.expand(x.shape).flatten().numpy()
    expected = np.pad(np.linalg.svd(matrix, compute_uv=False), (0, max(0, count - len(matrix))))[:count]
    cutoff = getattr(operator, "cutoff", 0.0) * expected[0] + 1e-12
    expected = np.where(expected > cutoff, expected, 0.0)
    np.testing.assert_allclose(np.sort(s)[::-1], expected, rtol=1e-9, atol=1e-12)

    images = operator(spectrum.synthesise(units))
    us = spectrum.measured(images).flatten(1).numpy().T
    np.testing.assert_allclose(us, np.diag(s), atol=1e-11 + cutoff)
    columns = components(images)[s > 0.0].numpy() / s[s > 0.0, None]
    np.testing.assert_allclose(columns @ columns.T, np.eye(len(columns)), atol=1e-9)


@every_spectrum
def test_coefficients_are_computed_image_by_image(case, tmp_path):
    """Uᴴ(A x) = s Vᴴx for a batch, where every image has its own random parts; round trips keep x."""
    x = random_images(3, 2, *case.sides(seed=6))
    operator = case.drawn(x, tmp_path)
    spectrum = operator.spectrum()
    c = spectrum.analyse(x)
    assert c.shape == x.shape and c.dtype == x.dtype
    torch.testing.assert_close(spectrum.synthesise(c), x, rtol=1e-11, atol=1e-12)
    bound = 1e-11 + getattr(operator, "cutoff", 0.0)
    assert ((spectrum.measured(operator(x)) - spectrum.s * c).abs() <= bound).all()
    for b in range(3):
        alone = case.drawn(x[b : b + 1], tmp_path, ids=(b,)).spectrum()
        torch.testing.assert_close(alone.analyse(x[b : b + 1]), c[b : b + 1], rtol=1e-11, atol=1e-12)


@every_spectrum
def test_white_noise_stays_white_noise(case, tmp_path):
    """Vᴴn of real white noise n, and Uᴴn of white noise on y, are real white noise of the same variance (5 standard errors)."""
    images, sigma = 400, 0.7
    x = torch.zeros(images, 1, *case.sides(seed=7, most=20), dtype=torch.float64)
    operator = case.drawn(x, tmp_path)
    spectrum = operator.spectrum()
    generator = torch.Generator().manual_seed(0)
    y = operator(x)
    noise = torch.randn(components(y).shape, generator=generator, dtype=torch.float64)
    on_y = torch.view_as_complex(noise.view(*y.shape, 2)) if y.is_complex() else noise.view(y.shape)
    on_x = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    kept = spectrum.s.expand(x.shape) > 0.0
    for values in (spectrum.analyse(sigma * on_x).flatten(), spectrum.measured(sigma * on_y)[kept]):
        assert abs(values.mean()) <= 5.0 * sigma / len(values) ** 0.5
        assert abs(values.square().mean() - sigma**2) <= 5.0 * 2.0**0.5 * sigma**2 / len(values) ** 0.5


def test_a_measured_column_of_k_space_determines_its_mirror_image():
    """x0 is real: s² is ½ where one of the two columns was measured, 1 where both were, and A⁺y is better than Aᴴy."""
    x = random_images(1, 1, 8, 16)
    operator = MRI(RandomColumns(4.0)).draw(x, generators([3]))
    mask = operator.mask.flatten()
    frequencies = torch.arange(16) - 8
    mirrored = torch.stack([mask[(8 - f) % 16] for f in frequencies])
    expected = ((mask + mirrored) / 2.0).sqrt()
    torch.testing.assert_close(torch.fft.fftshift(operator.spectrum().s.flatten()), expected, rtol=0, atol=1e-15)
    y = operator(x)
    assert norms(operator.pinv(y) - x) < norms(operator.adjoint(y) - x)
