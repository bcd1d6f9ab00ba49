"""Files of weights: the order in which they are looked for, and the errors. Downloads are tested by their users."""

from __future__ import annotations

import pytest

from diffusion_priors.runs.weights import find_or_fetch

UNREACHABLE = "http://127.0.0.1:9/x.pth"


def find(path, cached, url=None):
    return find_or_fetch("trunk", path, cached, url, "00", "set its path", timeout=1.0)


def test_a_path_precedes_the_cache_and_the_cache_precedes_the_url(tmp_path):
    own, cached = tmp_path / "own.pth", tmp_path / "cached.pth"
    for file in (own, cached):
        file.touch()
    assert find(str(own), cached, UNREACHABLE) == own
    assert find(None, cached, UNREACHABLE) == cached


def test_a_missing_path_is_an_error_even_if_the_cache_holds_a_file(tmp_path):
    cached = tmp_path / "cached.pth"
    cached.touch()
    with pytest.raises(FileNotFoundError, match=r"no trunk at .*none\.pth; set its path"):
        find(str(tmp_path / "none.pth"), cached, UNREACHABLE)


def test_without_a_url_an_uncached_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"no trunk cached\.pth in {tmp_path}; set its path"):
        find(None, tmp_path / "cached.pth")


def test_an_unreachable_server_is_an_error_that_names_the_url(tmp_path):
    with pytest.raises(OSError, match=UNREACHABLE):
        find(None, tmp_path / "cached.pth", UNREACHABLE)
    assert list(tmp_path.iterdir()) == []
