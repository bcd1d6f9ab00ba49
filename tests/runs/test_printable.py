"""Text from strangers: no control character reaches a terminal, and no secret of an address is shown or kept."""

from __future__ import annotations

import pytest

from diffusion_priors.runs.printable import printable, without_home, without_secrets


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, ε and 画像", "plain text, ε and 画像"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x9b31m", r"\x9b31m"),
        ("photo\u202egnp.exe", r"photo\u202egnp.exe"),
        ("line\u2028separator", r"line\u2028separator"),
        ("\udcff.png", r"\udcff.png"),
        ("\x00\x7f", r"\x00\x7f"),
    ],
)
def test_control_characters_are_written_out(text, shown):
    assert printable(text) == shown
    assert printable(text).isprintable()
    assert printable(printable(text)) == shown


def test_a_long_text_is_cut_and_the_rest_is_counted():
    assert printable("a" * 25, longest=10) == "aaaaaaaaaa… (15 more characters)"
    assert printable("a" * 10, longest=10) == "a" * 10


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://host/x.pt", "https://host/x.pt"),
        ("https://user:password@host/x.pt", "https://***@host/x.pt"),
        ("https://token@host:8080/x.pt", "https://***@host:8080/x.pt"),
        ("https://user:p@ss@host/x.pt", "https://***@host/x.pt"),
        ("https://user:it's@host/x.pt", "https://***@host/x.pt"),
        ("https://host/x.pt?token=abc", "https://host/x.pt?token=***"),
        ("https://host/x.pt?download=true&X-Amz-Signature=abc#top", "https://host/x.pt?download=***&X-Amz-Signature=***#top"),
        ("https://host/x.pt?abc", "https://host/x.pt?***"),
        ("https://host/x.pt?a=b=c", "https://host/x.pt?a=***"),
        ("cannot fetch 'ftp://u:p@h/x?k=v': no answer", "cannot fetch 'ftp://***@h/x?k=***': no answer"),
        ("prior.checkpoint.url=https://u:p@h/x seed=1", "prior.checkpoint.url=https://***@h/x seed=1"),
        ("cannot fetch https://host/x?token=abc: no answer", "cannot fetch https://host/x?token=***: no answer"),
        ("(https://host/x?token=abc), then", "(https://host/x?token=***), then"),
        ("https://a:b@c/d https://e:f@g/h", "https://***@c/d https://***@g/h"),
        ("https://host/model@v2/x.pt", "https://host/model@v2/x.pt"),
        ("name@host.org asks: why? because", "name@host.org asks: why? because"),
    ],
)
def test_secrets_of_addresses_are_masked(text, shown):
    assert without_secrets(text) == shown
    assert without_secrets(without_secrets(text)) == shown


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("/home/me/faces", "~/faces"),
        ("/home/me", "~"),
        ("data.root=/home/me/faces", "data.root=~/faces"),
        ("data.root='/home/me/a b'", "data.root='~/a b'"),
        ("[/home/me/a,/home/me/b]", "[~/a,~/b]"),
        ('File "/home/me/x.py", line 3', 'File "~/x.py", line 3'),
        ("/data/me/faces, the real one", "~/faces, the real one"),
        ("/home/mean/faces", "/home/mean/faces"),
        ("/home/me.old", "/home/me.old"),
        ("/backup/home/me/faces", "/backup/home/me/faces"),
        ("https://x.org/home/me/a.pt", "https://x.org/home/me/a.pt"),
        ("../home/me", "../home/me"),
    ],
)
def test_the_home_is_kept_without_the_name_of_its_owner(monkeypatch, text, kept):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setattr("os.path.realpath", lambda path: path.replace("/home/me", "/data/me"))
    assert without_home(text) == without_home(without_home(text)) == kept
    assert without_home({"a": [text, 3, None]}) == {"a": [kept, 3, None]}


@pytest.mark.parametrize("home", ["/", "", "relative"])
def test_without_a_home_of_ones_own_paths_stay(monkeypatch, home):
    monkeypatch.setenv("HOME", home)
    for text in ("/data/faces", "relative/x", "a"):
        assert without_home(text) == text
