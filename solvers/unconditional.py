"""Unconditional generation."""

from __future__ import annotations

from diffusion_priors.solvers.base import Guided


class Unconditional(Guided):
    """x_{t−1} = (x_t + (1 − α_t) s_θ(x_t, t))/√α_t + τ z from x_T ~ N(0, I) (the paper's Eq. 2, Sec. 3.4).

    The paper's Eq. 2 leaves out the noise τ z, without which samples collapse to smooth images. Ho et al.
    2020, Alg. 2, has it, and so has sampler=ddpm; sampler=ddim, euler, heun, dpmpp_2m and unipc follow the probability flow.
    y is not used.
    """

    uses_measurement = False
