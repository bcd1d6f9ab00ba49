"""`diffusion-priors NAME`: what it refuses. tests/test_namespace.py installs a wheel and restores an image with it."""

from __future__ import annotations

import pytest

from diffusion_priors.__main__ import SCRIPTS, main
from diffusion_priors.conf import groups


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "error: no command is given; choose one of sample, evaluate, train, checkpoints, as in diffusion-priors sample"),
        (
            ["sampel", "solver=dps"],
            "error: 'sampel' is unknown; choose one of sample, evaluate, train, checkpoints, as in diffusion-priors sample",
        ),
    ],
)
def test_a_wrong_command_is_refused_in_one_line(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["diffusion-priors", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    assert (caught.value.code, capsys.readouterr().err) == (2, f"{message}\n")


def test_the_help_lists_the_scripts(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["diffusion-priors", "--help"])
    main()
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in groups.SCRIPTS)
    assert {*groups.SCRIPTS} <= {*SCRIPTS}
