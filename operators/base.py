"""Operators A: images (B, C, H, W) → measurements (B, C', H', W')."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from numpy.random import Generator
from torch import Tensor, nn


class Operator(nn.Module):
    """y = A(x0). A new operator needs only `forward`; random parts are drawn in `draw` and owned from then on.

    Images are (B, C, H, W) in [-1, 1], of any height, width and channel count. `random` says whether `draw`
    uses its generators: such an operator cannot restore an image it did not degrade itself.
    """

    random = False
    image_shape: torch.Size

    def __init__(self) -> None:
        super().__init__()

    def draw(self, like: Tensor, generators: Sequence[Generator]) -> Self:
        """Fix the random parts for a batch of images like `like` (B, C, H, W), image b from generator b.

        Raises ValueError where the operator does not fit images of that size.
        """
        if len(generators) != len(like):
            raise ValueError(f"every image has a generator of its own: {len(like)} images came with {len(generators)}")
        self.image_shape = like.shape
        return self

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def support(self, y: Tensor) -> Tensor:
        """1 where an entry of y is measured, 0 where it only fills the image; broadcastable to y."""
        return y.new_ones(())

    def as_image(self, y: Tensor) -> Tensor:
        """y as an image the size of x0, to start from and to look at: y itself where it has that shape."""
        raise NotImplementedError

    def misfit_gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """∇_x ‖A x − y‖₂² per image, by autograd."""
        with torch.inference_mode(False), torch.enable_grad():
            x = x.detach().clone().requires_grad_()
            misfit = (self(x) - y).square().sum()
            return torch.autograd.grad(misfit, x)[0]


class LinearOperator(Operator):
    """A linear A, with Aᵀ from autograd and A⁺ by conjugate gradients unless a subclass knows better."""

    cg_tolerance = 1e-6
    cg_iterations = 500

    def adjoint(self, y: Tensor) -> Tensor:
        """Aᵀy, exact: the vector-Jacobian product of `forward`, which for a linear A is its transpose.

        No gradient flows back to y; a subclass in closed form has one.
        """
        with torch.inference_mode(False), torch.enable_grad():
            x = y.new_zeros((y.shape[0], *self.image_shape[1:])).requires_grad_()
            return torch.autograd.grad(self(x), x, y.clone())[0]

    def pinv(self, y: Tensor) -> Tensor:
        """A⁺y, the least-squares solution of least norm, by CGLS (Björck 1996, Alg. 7.4.1), image by image.

        An image stops once ‖Aᵀ(y − Ax)‖ falls below `cg_tolerance` of ‖Aᵀy‖, whatever the others do, or after
        `cg_iterations`: for an ill-conditioned blur that is a regularised inverse. No gradient flows to y.
        """
        x = y.new_zeros((y.shape[0], *self.image_shape[1:]))
        r, s = y, self.adjoint(y)
        p, gamma = s, _dot(s, s)
        floor = self.cg_tolerance**2 * gamma
        for _ in range(self.cg_iterations):
            active = gamma > floor
            if not active.any():
                break
            q = self(p)
            step = torch.where(active, gamma / _dot(q, q).clamp_min(torch.finfo(y.dtype).tiny), 0.0)
            x, r = x + step * p, r - step * q
            s = self.adjoint(r)
            fresh = _dot(s, s)
            p = torch.where(active, s + fresh / gamma.clamp_min(torch.finfo(y.dtype).tiny) * p, p)
            gamma = torch.where(active, fresh, gamma)
        return x

    def as_image(self, y: Tensor) -> Tensor:
        return y if y.shape[1:] == self.image_shape[1:] else self.pinv(y)

    def misfit_gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """∇_x ‖A x − y‖₂² = 2 Aᵀ(A x − y)."""
        return 2.0 * self.adjoint(self(x) - y)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1).view(-1, 1, 1, 1)


def uniform(generators: Sequence[Generator], *shape: int, like: Tensor) -> Tensor:
    """(B, *shape) numbers in [0, 1), row b from generator b, typed and placed like `like`."""
    return torch.stack([torch.from_numpy(g.random(shape)) for g in generators]).to(like)
