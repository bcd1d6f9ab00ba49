"""What follows from frozen weights alone, computed once."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from torch import Tensor


class Kept:
    """Tensors that were computed from one tensor, by name, until that tensor changes.

    A tensor has changed where it lies elsewhere in memory, or where its version counter has moved: `load_state_dict`, `.to(...)` and
    every operation in place do that. The memory of the old tensor is held, so that no other one can take its place unseen.
    """

    def __init__(self) -> None:
        self._source: tuple[int, int] | None = None
        self._memory: object = None
        self._made: dict[Hashable, Tensor] = {}

    def __call__(self, name: Hashable, source: Tensor, make: Callable[[], Tensor]) -> Tensor:
        """The tensor `name` of `source`: `make()`, or what that gave before."""
        if source.is_inference() or not _in_memory(source):  # neither counts its versions
            return make()
        if self._source != (source.data_ptr(), source._version):
            self._source, self._memory, self._made = (source.data_ptr(), source._version), source.untyped_storage(), {}
        if name not in self._made:
            made = make()
            if not _in_memory(made):
                return made
            self._made[name] = made
        return self._made[name]


def _in_memory(tensor: Tensor) -> bool:
    """Whether it holds numbers; the tensors of a transform of torch.func stand for others."""
    try:
        return tensor.data_ptr() != 0
    except RuntimeError:
        return False
