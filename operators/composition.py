"""Operators one after the other: blur, then reduce, then mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self, cast

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn

from diffusion_priors.images.fit import Through
from diffusion_priors.operators.base import IMAGE_UNIT, Operator, PullBack
from diffusion_priors.operators.drawing import Drawing
from diffusion_priors.operators.identity import Identity
from diffusion_priors.operators.linear import LinearOperator
from diffusion_priors.operators.separable import Separable


def compose(operators: Mapping[str, Operator]) -> Operator:
    """y = A_n(… A_1(x0)), in the order of `operators`, name → A_i. It is linear where all A_i are.

    Its singular value decomposition is known where that of y = R x0 Cᵀ is: where every A_i is separable (Gaussian blur,
    reductions), or where all but one are the identity. Raises ValueError where there is no operator.
    """
    if not operators:
        raise ValueError("a composition needs at least one operator; set operator.operators={first: …}")
    chain = [operator for operator in operators.values() if not isinstance(operator, Identity)] or [Identity()]
    if len(chain) == 1:
        return chain[0]
    separable = [operator for operator in chain if isinstance(operator, Separable)]
    if len(separable) == len(chain):
        return SeparableComposition(separable)
    return LinearComposition(chain) if all(operator.linear for operator in chain) else Composition(chain)


class Composition(Operator):
    """y = A_n(… A_1(x0)). Each A_i is drawn for images of the shape that A_{i−1} gives, from the image's one generator in turn.

    The support is that of A_n; y is an image where every A_i gives one. A file of any A_i (a mask, a kernel) may have the size of
    the image that A_i sees, that of x0, or that of the image files: it then follows their crop, and is resized to what A_i sees.

    Raises ValueError where a complex y would be the image of the next operator.
    """

    def __init__(self, chain: Sequence[Operator]) -> None:
        super().__init__()
        self.chain = nn.ModuleList(chain)
        self.random = any(operator.random for operator in chain)
        self.rounds = any(operator.rounds for operator in chain)
        units = {operator.unit for operator in chain}
        last = chain[-1].unit if chain[-1].unit != IMAGE_UNIT else Operator.unit
        self.unit = IMAGE_UNIT if units == {IMAGE_UNIT} else last

    @property
    def operators(self) -> list[Operator]:
        """A_1, …, A_n."""
        return [operator for operator in self.chain if isinstance(operator, Operator)]

    def file_size(self, size: tuple[int, int]) -> tuple[int, int] | None:
        sizes = {operator.file_size((operator.image_shape[-2], operator.image_shape[-1])) for operator in self.operators} - {None, size}
        if len(sizes) > 1:
            shown = " and ".join(f"{height} x {width}" for height, width in sorted(filter(None, sizes)))
            raise ValueError(f"files of the composition are for images of {shown}; give it masks and kernels of one size")
        return next(iter(sizes), None)

    def draw(self, like: Tensor, generators: Sequence[Generator]) -> Self:
        super().draw(like, generators)
        size = (like.shape[-2], like.shape[-1])
        with torch.no_grad():
            for operator in self.operators:
                operator.fit = self.fit if self.fit is None else Through(self.fit, size)
                if like.is_complex():
                    raise ValueError(f"{type(operator).__name__} would follow an operator whose y is complex; put that one last")
                like = operator.draw(like, generators)(like)
        return self

    def forward(self, x0: Tensor) -> Tensor:
        for operator in self.operators:
            x0 = operator(x0)
        return x0

    def acquire(self, x0: Tensor) -> Tensor:
        for operator in self.operators:
            x0 = operator.acquire(x0)
        return x0

    def linearise(self, x0: Tensor) -> tuple[Tensor, PullBack]:
        """(A(x0), pull_back) from those of A_1, …, A_n: the chain rule."""
        pull_backs = []
        for operator in self.operators:
            x0, pull_back = operator.linearise(x0)
            pull_backs.append(pull_back)

        def pull_back_all(v: Tensor) -> Tensor:
            for pull_back in reversed(pull_backs):
                v = pull_back(v)
            return v

        return x0, pull_back_all

    def support(self, y: Tensor) -> Tensor:
        return self.operators[-1].support(y)

    def as_image(self, y: Tensor) -> Tensor | None:
        return self.operators[-1].as_image(y) if self.unit == IMAGE_UNIT else None

    def drawing(self, y: Tensor) -> Drawing | None:
        if self.as_image(y) is not None:
            return None
        return self.operators[-1].drawing(y) or super().drawing(y)

    def first_look(self, y: Tensor) -> tuple[str, Tensor] | None:
        """That of A_n, where its images have the shape of x0."""
        last = self.operators[-1]
        return last.first_look(y) if last.image_shape == self.image_shape else None

    def has_image_shape(self, y: Tensor) -> bool:
        return self.unit == IMAGE_UNIT and super().has_image_shape(y)


class LinearComposition(Composition, LinearOperator):
    """A = A_n … A_1, Aᴴ = A_1ᴴ … A_nᴴ; inverses by conjugate gradients."""

    def adjoint(self, y: Tensor) -> Tensor:
        for operator in reversed(self.operators):
            y = cast(LinearOperator, operator).adjoint(y)
        return y


class SeparableComposition(Separable):
    """y = R_n … R_1 x0 (C_n … C_1)ᵀ, which is separable itself and has its spectrum."""

    def __init__(self, factors: Sequence[Separable]) -> None:
        super().__init__()
        self.factors = tuple(factors)  # no modules of this one: they give their matrices and are never drawn

    def matrix(self, side: int) -> np.ndarray:
        product = np.eye(side)
        for factor in self.factors:
            product = factor.matrix(len(product)) @ product
        return product
