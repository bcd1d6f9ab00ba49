"""Operators A: images x0 (B, C, H, W) → measurements y, one row per image, real or complex, of any further shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Self

import torch
from numpy.random import Generator
from torch import Tensor, nn

from diffusion_priors.images.fit import Fit
from diffusion_priors.operators.drawing import Drawing

PullBack = Callable[[Tensor], Tensor]
"""v shaped like y → Re(Jᴴv) shaped like x0."""
IMAGE_UNIT = "[-1, 1]"
"""The unit of an operator whose y is an image."""


class Operator(nn.Module):
    """y = A(x0). A new operator needs only `forward`; `draw` fixes its random parts, and the operator keeps them.

    Images are (B, C, H, W) in [-1, 1], of any height, width and channel count. `random` says whether `draw` uses its
    generators: such an operator cannot restore an image that it did not degrade itself. A buffer with four dimensions
    holds one row per image, or one row for all; other buffers are shared by all images. `unit` is that of y.
    """

    random = False
    linear = False
    has_spectrum = False
    rounds = False
    """Whether y is rounded: its gradient then stands in for a slope that is 0 almost everywhere."""
    unit = "the unit of y"
    fit: Fit | None = None
    """How a run brings image files to the prior's size. A file of this operator that has the size of theirs follows it."""
    image_shape: torch.Size
    image_dtype: torch.dtype

    def __init__(self) -> None:
        super().__init__()

    def draw(self, like: Tensor, generators: Sequence[Generator]) -> Self:
        """Fix the random parts for a batch of images like `like` (B, C, H, W), image b from generator b.

        Raises ValueError where the operator does not fit images of that size.
        """
        if len(generators) != len(like):
            raise ValueError(f"every image needs a generator of its own: got {len(like)} images and {len(generators)} generators")
        self.image_shape, self.image_dtype = like.shape, like.dtype
        return self

    def file_size(self, size: tuple[int, int]) -> tuple[int, int] | None:
        """The (height, width) that image files must have before they are brought to `size`; None where any will do.

        The operator is drawn for images of `size`. Raises ValueError where no size will do.
        """
        return None

    def forward(self, x0: Tensor) -> Tensor:
        raise NotImplementedError

    def acquire(self, x0: Tensor) -> Tensor:
        """What a device measures of x0, without noise: `forward`, unless that only approximates the device."""
        return self(x0)

    def repeat(self, k: int) -> Self:
        """The drawn operator for `k` copies of each image, the copies of an image next to each other; operators in it likewise."""
        images, *shape = self.image_shape
        repeated = copy(self)
        repeated._modules = _repeated_modules(self._modules, k)
        repeated._buffers = {name: _repeated(buffer, images, k, f"{type(self).__name__}.{name}") for name, buffer in self._buffers.items()}
        repeated.image_shape = torch.Size([images * k, *shape])
        return repeated

    def support(self, y: Tensor) -> Tensor:
        """1 where an entry of y is measured, 0 where it only fills the shape; real, broadcastable to y."""
        return y.real.new_ones(())

    def as_image(self, y: Tensor) -> Tensor | None:
        """y as an image to look at, at its own size; None where y is no image. Here: a real y of the shape of x0."""
        return y if self.has_image_shape(y) else None

    def initial_image(self, y: Tensor) -> Tensor | None:
        """An image of the shape of x0, to start from and to score; None where y gives none.

        An operator that always gives one overrides this: solvers which need one look for that.
        """
        return y if self.has_image_shape(y) else None

    def drawing(self, y: Tensor) -> Drawing | None:
        """y as one looks at it in its field, where it is no image: here its numbers. None where it is an image."""
        return Drawing.of_numbers("y", y) if self.as_image(y) is None else None

    def first_look(self, y: Tensor) -> tuple[str, Tensor] | None:
        """(its name, a reconstruction of the shape of x0) that the field looks at before any restoration; None where it has none."""
        return None

    def has_image_shape(self, y: Tensor) -> bool:
        return not y.is_complex() and y.shape[1:] == self.image_shape[1:]

    def linearise(self, x0: Tensor) -> tuple[Tensor, PullBack]:
        """(A(x0), pull_back), pull_back(v) = Re(Jᴴv) with the Jacobian J of A at x0, by autograd."""
        with torch.inference_mode(False), torch.enable_grad():
            x0 = x0.detach().clone().requires_grad_()
            y = self(x0)

        def pull_back(v: Tensor) -> Tensor:
            with torch.inference_mode(False):
                return torch.autograd.grad(y, x0, v.clone(), retain_graph=True)[0]

        return y.detach(), pull_back

    def push_forward(self, x0: Tensor, d: Tensor) -> Tensor:
        """J d, shaped like y, with the Jacobian J of A at x0, by forward-mode autograd."""
        with torch.inference_mode(False):
            return torch.func.jvp(self, (x0.detach().clone(),), (d.detach().clone(),))[1]


def _repeated_modules(modules: dict[str, nn.Module | None], k: int) -> dict[str, nn.Module | None]:
    """The operators among them repeated, also those inside lists; other modules are shared."""
    found: dict[str, nn.Module | None] = {}
    for name, module in modules.items():
        if isinstance(module, Operator):
            found[name] = module.repeat(k)
        elif module is not None and any(isinstance(inner, Operator) for inner in module.modules()):
            found[name] = container = copy(module)
            container._modules = _repeated_modules(module._modules, k)
        else:
            found[name] = module
    return found


def _repeated(buffer: Tensor | None, images: int, k: int, name: str) -> Tensor | None:
    if buffer is None or buffer.ndim != 4 or len(buffer) == 1:
        return buffer
    if len(buffer) != images:
        raise ValueError(
            f"{name} has {len(buffer)} rows for {images} images; a buffer with four dimensions needs one row per image, or one"
        )
    return buffer.repeat_interleave(k, 0)


def uniform(generators: Sequence[Generator], *shape: int, like: Tensor) -> Tensor:
    """(B, *shape) numbers in [0, 1), row b from generator b, with the type and device of `like`."""
    return torch.stack([torch.from_numpy(g.random(shape)) for g in generators]).to(like)
