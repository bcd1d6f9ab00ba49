"""Less memory for more computation: blocks of a network that are computed again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class RecomputedBlocks(nn.Module):
    """A network that can keep the inputs of its blocks alone, and compute a block again when its gradient is due (Chen et al. 2016).

    The values are the same; every vector-Jacobian product costs about one more forward pass. `enable_gradient_checkpointing` has
    the name and the meaning that it has in the library diffusers.
    """

    recomputes = False
    shares_level = True
    """`forward` takes t of one element for all images of a batch."""

    def enable_gradient_checkpointing(self) -> None:
        """From now on, compute the blocks again in every backward pass."""
        self.recomputes = True

    def block(self, compute: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """`compute`(*`inputs`). In a graph, and with `recomputes`, nothing else is kept of it than its inputs."""
        if not (self.recomputes and torch.is_grad_enabled()):
            return compute(*inputs)
        return checkpoint(compute, *inputs, use_reentrant=False)

    def joined(self, compute: Callable[..., Tensor], x: Tensor, skip: Tensor, emb: Tensor) -> Tensor:
        """The block `compute` on the channels of `x` and `skip`, which are kept apart."""
        return self.block(lambda x, skip, emb: compute(torch.cat([x, skip], dim=1), emb), x, skip, emb)
