"""The layout of a run's folder, spelled out once."""

from __future__ import annotations

WHITE = 0.25
"""The standard deviation, on [0, 1] images, that std.png draws white: the same for all images, so that they compare."""
