"""Linear operators: from `forward` alone, Aᴴ by autograd and inverses by conjugate gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion_priors.operators.base import Operator, PullBack
from diffusion_priors.operators.krylov import cg, cgls
from diffusion_priors.operators.spectrum import Spectrum


class LinearOperator(Operator):
    """A linear A. A subclass that has a `spectrum` (`has_spectrum`) gets its inverses in closed form from it.

    So does one that has a `gram_inverse` (`has_gram_inverse`): for A with orthogonal rows of one length, AAᴴ = κI, that is y/(κ + w).

    Images are real, so for a complex y the adjoint is that of Re⟨A x, y⟩: Aᴴy stands for Re(Aᴴy).
    """

    linear = True
    has_gram_inverse = False
    cg_tolerance = 1e-6
    cg_iterations = 500

    def adjoint(self, y: Tensor) -> Tensor:
        """Aᴴy, exact: the vector-Jacobian product of `forward`, which for a linear A is its adjoint.

        No gradient flows back to y; an adjoint in closed form has one.
        """
        with torch.inference_mode(False), torch.enable_grad():
            x = torch.zeros((len(y), *self.image_shape[1:]), dtype=self.image_dtype, device=y.device, requires_grad=True)
            return torch.autograd.grad(self(x), x, y.clone())[0]

    def spectrum(self) -> Spectrum:
        """The singular value decomposition of the drawn A, where `has_spectrum`."""
        raise NotImplementedError(f"{type(self).__name__} has no spectrum; choose a solver that needs none")

    def gram_inverse(self, y: Tensor, weight: Tensor | float) -> Tensor:
        """(AAᴴ + w I)⁻¹y, w ≥ 0 a number or (B, 1, 1, 1), and (AAᴴ)⁺y where w is 0; where `has_gram_inverse`."""
        raise NotImplementedError(f"{type(self).__name__} has no closed form of (AAᴴ + w I)⁻¹")

    def pinv(self, y: Tensor) -> Tensor:
        """A⁺y, the least-squares solution of least norm.

        By conjugate gradients it stops once ‖Aᴴ(y − Ax)‖ falls below `cg_tolerance` of ‖Aᴴy‖, or after
        `cg_iterations`: for an ill-conditioned blur that is a regularised inverse.
        """
        return self.tikhonov(y, 0.0)

    def tikhonov(self, y: Tensor, weight: Tensor | float) -> Tensor:
        """argmin_x ‖y − A x‖² + w ‖x‖² = (AᴴA + w I)⁻¹ Aᴴy, w ≥ 0 a number or (B, 1, 1, 1); A⁺y where w is 0."""
        if self.has_spectrum:
            spectrum = self.spectrum()
            gain = torch.where(spectrum.s > 0.0, spectrum.s / (spectrum.s.square() + weight), 0.0)
            return spectrum.synthesise(gain * spectrum.measured(y))
        if self.has_gram_inverse:
            return self.adjoint(self.gram_inverse(y, weight))
        return cgls(self, self.adjoint, y, weight, self.cg_tolerance, self.cg_iterations)

    def solve(self, b: Tensor, weight: Tensor | float) -> Tensor:
        """(AᴴA + w I)⁻¹ b, w > 0 a number or (B, 1, 1, 1). With a spectrum w may be 0: then it is (AᴴA)⁺b."""
        if self.has_spectrum:
            spectrum = self.spectrum()
            curvature = spectrum.s.square() + weight
            return spectrum.synthesise(torch.where(curvature > 0.0, 1.0 / curvature, 0.0) * spectrum.analyse(b))
        if self.has_gram_inverse:  # Woodbury's identity
            return (b - self.adjoint(self.gram_inverse(self(b), weight))) / weight
        return cg(lambda x: self.adjoint(self(x)) + weight * x, b, self.cg_tolerance, self.cg_iterations)

    def linearise(self, x0: Tensor) -> tuple[Tensor, PullBack]:
        """(A x0, Aᴴ)."""
        return self(x0), self.adjoint

    def push_forward(self, x0: Tensor, d: Tensor) -> Tensor:
        """A d."""
        return self(d)

    def initial_image(self, y: Tensor) -> Tensor:
        """y itself where it is real and has the shape of x0, else A⁺y."""
        return y if self.has_image_shape(y) else self.pinv(y)
