"""Your own forward model: a function, or a class whose objects are called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Self

import torch
from numpy.random import Generator
from torch import Tensor

from diffusion_priors.operators.base import IMAGE_UNIT, Operator
from diffusion_priors.operators.krylov import inner, squared_norm
from diffusion_priors.operators.linear import LinearOperator

ForwardModel = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) in [-1, 1] → y, one row per image, real or complex, of any further shape."""


class Custom(Operator):
    """y = f(x0), f any function of torch tensors; gradients by automatic differentiation.

    `function` is f, or a class whose objects are f. `unit` is that of y: "[-1, 1]" where y is an image, of any size, with one
    channel or those of x0, and else any name. For images of a new shape f is tried on two random ones first.

    Raises ValueError where f does not return a row per image, where y is no image though its unit says so, where y has no
    gradient, or where a row depends on the other images.
    """

    def __init__(self, function: ForwardModel, unit: str = IMAGE_UNIT) -> None:
        super().__init__()
        self.function = _built(function)
        if not callable(self.function):
            raise ValueError(f"a {type(self.function).__name__} cannot be called with images; set operator.function._target_")
        self.unit = unit
        self.tried: torch.Size | None = None

    def draw(self, like: Tensor, generators: Sequence[Generator]) -> Self:
        super().draw(like, generators)
        if self.tried != like.shape[1:]:
            source = torch.Generator().manual_seed(0)
            with torch.inference_mode(False), torch.enable_grad():
                self.check(torch.rand(2, *like.shape[1:], generator=source, dtype=torch.float64).mul(2.0).sub(1.0).to(like))
            self.tried = like.shape[1:]
        return self

    def forward(self, x0: Tensor) -> Tensor:
        return self.function(x0)

    def as_image(self, y: Tensor) -> Tensor | None:
        fits = not y.is_complex() and y.ndim == 4 and y.shape[1] in (1, self.image_shape[1])
        return y if fits and self.unit == IMAGE_UNIT else None

    def has_image_shape(self, y: Tensor) -> bool:
        return self.unit == IMAGE_UNIT and super().has_image_shape(y)

    def check(self, x: Tensor) -> None:
        """Try f on two images (2, C, H, W)."""
        try:
            y = self(x.requires_grad_())
        except Exception as error:
            raise ValueError(f"{self.name} fails on two images of shape {tuple(x.shape)}: {type(error).__name__}: {error}") from error
        if not isinstance(y, Tensor) or y.ndim < 2 or len(y) != 2:
            found = f"shape {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(f"{self.name} must return a tensor with one row per image, got {found} for two images")
        if self.unit == IMAGE_UNIT and self.as_image(y) is None:
            raise ValueError(
                f"{self.name} returns {tuple(y.shape)} {y.dtype}, which is no image; name its unit, as in operator.unit=counts"
            )
        if not y.requires_grad:
            raise ValueError(f"{self.name} returns a y without a gradient to x0; compute it with functions of torch")
        if not all(close(self(x[b : b + 1]), y[b : b + 1]) for b in range(2)):
            raise ValueError(f"{self.name} computes a row from the other images of the batch; compute each row from its own image")

    @property
    def name(self) -> str:
        """That of the function, for messages."""
        function = self.function.func if isinstance(self.function, partial) else self.function
        return getattr(function, "__qualname__", type(function).__name__)


class CustomLinear(Custom, LinearOperator):
    """y = f(x0), f linear: Aᴴ by automatic differentiation, inverses by conjugate gradients.

    Raises ValueError also where, on the two random images, f is not linear or Aᴴ is not its adjoint.
    """

    wrong_adjoint = "a function of torch in it has a wrong backward pass; write it with others"

    def check(self, x: Tensor) -> None:
        super().check(x)
        a, b = x[:1].detach(), x[1:].detach()
        ya, yb = self(a), self(b)
        if not close(self(2.0 * a + b), 2.0 * ya + yb):
            raise ValueError(f"{self.name} is not linear: f(2a + b) is not 2 f(a) + f(b); use operator=custom")
        gap = max(self.gap(a, ya, v) for v in (ya, ya.flip(-1) + yb))
        if not gap <= torch.finfo(x.dtype).eps ** 0.6:
            raise ValueError(f"the adjoint of {self.name} is wrong: Re⟨A x, v⟩ and ⟨x, Aᴴv⟩ differ by {gap:.2g}; {self.wrong_adjoint}")

    def gap(self, x: Tensor, y: Tensor, v: Tensor) -> float:
        """|Re⟨A x, v⟩ − ⟨x, Aᴴv⟩| / ‖A x‖ ‖v‖, y = A x."""
        seen = self.adjoint(v)
        if seen.shape != x.shape:
            return 1.0
        scale = (squared_norm(y) * squared_norm(v)).sqrt()
        return float((inner(y, v) - inner(x, seen)).abs() / scale.clamp_min(torch.finfo(x.dtype).tiny))


def _built(function: Any) -> Any:
    """An object of the class, where `function` is a class with some of its arguments."""
    return function() if isinstance(function, partial) and inspect.isclass(function.func) else function


def close(a: Tensor, b: Tensor) -> bool:
    """Equal to the rounding of many operations."""
    eps = torch.finfo(a.dtype).eps ** 0.75
    return bool(torch.linalg.vector_norm(a - b) <= eps * (torch.linalg.vector_norm(a) + torch.linalg.vector_norm(b)))
