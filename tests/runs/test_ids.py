"""Ids of images are single components of paths."""

import pytest

from diffusion_priors.runs.ids import check_id


@pytest.mark.parametrize("name", ["face-1", "ünï %2F #?", "...", ".hidden", "a b", "<b>", "x" * 255, "é" * 127, "\udcff", "-rf", "~"])
def test_names_of_folders_are_ids(name):
    check_id(name)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "names no folder"),
        (".", "names no folder"),
        ("..", "names no folder"),
        ("../../x", "separator"),
        ("/etc/passwd", "separator"),
        ("a\\b", "separator"),
        ("a\0b", "control character"),
        ("a\nb", "control character"),
        ("a\x1b[2Jb", "control character"),
        ("a\x85b", "control character"),
        ("a\u202eb", "control character"),
        ("x" * 256, "256 bytes, more than 255"),
        ("é" * 128, "256 bytes, more than 255"),
        ("\ud800", "no file system"),
        (7, "type int"),
        (None, "type NoneType"),
    ],
)
def test_others_are_refused_in_one_printable_line(name, says):
    with pytest.raises(ValueError, match=says) as refused:
        check_id(name)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 250
