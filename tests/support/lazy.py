"""Modules that are imported when a test first uses them, so that collecting tests stays fast."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class Lazy:
    """Stands for the module `name`, and imports it when one of its public attributes is first read.

    pytest reads private attributes of everything in a test module; these do not count.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_"):
            raise AttributeError(attribute)
        return getattr(import_module(self._name), attribute)
