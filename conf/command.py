"""What the mains of all scripts share: a one-line error and an exit code instead of a traceback.

Nothing heavy is imported here, so that --help and the completion of the shell answer at once.
"""

from __future__ import annotations

import gc
import os
import string
import sys
import traceback
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from threading import Event
from types import NoneType
from typing import NoReturn

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from diffusion_priors.conf import PROJECT, errors
from diffusion_priors.conf.errors import NotApplicableStop, Stop
from diffusion_priors.conf.groups import SCRIPTS, hint, misplaced, options
from diffusion_priors.conf.paths import literal_paths, quoted
from diffusion_priors.diffusion.priors.hub import NAME, path_or_hub
from diffusion_priors.diffusion.priors.kinds import option_for
from diffusion_priors.runs.exit_codes import BROKEN_PIPE, REFUSED, SIGINT, STOPPED
from diffusion_priors.runs.exit_codes import FAILED as FAILED
from diffusion_priors.runs.layout import RunLayout
from diffusion_priors.runs.printable import printable, without_home, without_secrets

TRACEBACK = "HYDRA_FULL_ERROR"
OWN_OPTIONS = ("-cd", "--config-dir", "-cp", "--config-path")
"""Of Hydra: where these are given, prior=a/b may be an option in a folder of the user's own."""
WANTS_TRACEBACK = os.environ.get(TRACEBACK) == "1"
SPINS = "10000"
"""How often a thread of PyTorch looks for work before it sleeps (libgomp). By default it looks for milliseconds, and keeps a core busy
that others wait for. Beside two busy processes on two cores, a run then took up to four times as long; alone, it is as fast."""

IMPORTED = Event()
"""Set once `importing` has been entered. gc.get_freeze_count() tells too, but it visits every object."""


def job(main: Callable[[DictConfig], float | None]) -> Callable[[DictConfig], float | None]:
    """A Hydra main's function. Alone, a Stop ends the script at once.

    In a sweep an error fails this job and no other, and its traceback is left in the job's folder. A solver that is not
    applicable is no failure: its reason is left there. A job that was asked to stop ends the sweep.
    """

    @wraps(main)
    def run(config: DictConfig) -> float | None:
        if HydraConfig.get().mode != RunMode.MULTIRUN:
            try:
                return main(config)
            except (Stop, HydraException, OmegaConfBaseException) as error:  # Hydra would print a line of its own before it
                end(error)
        layout = RunLayout(Path(HydraConfig.get().runtime.output_dir))
        layout.error.unlink(missing_ok=True)
        layout.not_applicable.unlink(missing_ok=True)
        try:
            return main(config)
        except NotApplicableStop as error:
            layout.not_applicable.write_text(f"{one_line(error)}\n", encoding="utf-8")
            print(f"not applicable: {layout.root.name}: {one_line(error)}", file=sys.stderr)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other jobs of the sweep continue
            if getattr(error, "code", None) in STOPPED:
                end(error)
            text = without_home(without_secrets(f"{traceback.format_exc()}\n{one_line(error)}\n"))
            layout.error.write_text(text, encoding="utf-8", errors="backslashreplace")
            print(f"error: {layout.root.name}: {one_line(error)}", file=sys.stderr)
        return None

    return run


def command(main: Callable[[], None]) -> None:
    """Run a Hydra main. HYDRA_FULL_ERROR=1 in the environment shows tracebacks instead of one-line errors."""
    os.environ[TRACEBACK] = "1"  # Hydra then raises instead of printing and exiting with 1
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # read when PyTorch is loaded
    script = Path(sys.argv[0]).stem
    try:
        own_options = any(argument.startswith(OWN_OPTIONS) for argument in sys.argv[1:])
        sys.argv[1:] = literal_paths([part for argument in sys.argv[1:] for part in prior_from_file(argument, hub=not own_options)])
        given = check_overrides(script, sys.argv[1:])
        if given.help and script in SCRIPTS and not own_configuration(given):
            print(help_of(script, given.overrides))
        else:
            with composed_once(given):
                main()
    except KeyboardInterrupt:
        sys.exit(SIGINT)
    except BrokenPipeError:  # the reader of the output has ended, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(BROKEN_PIPE)
    except (Stop, HydraException, OmegaConfBaseException) as error:
        end(error)


def own_configuration(given: Namespace) -> bool:
    """Whether options of Hydra name a configuration or a folder of the user's own."""
    return bool(given.config_name or given.config_path or given.config_dir)


@contextmanager
def composed_once(given: Namespace) -> Iterator[None]:
    """Hydra composes the configuration a first time only to read hydra.mode from it. Skip that where nothing in `given` can set the mode.

    Without an answer, Hydra takes the mode from the options: --multirun or not.
    """
    from hydra._internal.hydra import Hydra

    keys = [argument.lstrip("+~") for argument in given.overrides]
    if own_configuration(given) or any(key.startswith(("experiment", "hydra")) for key in keys):
        yield
        return
    get_mode = Hydra.get_mode
    Hydra.get_mode = lambda *_, **__: None
    try:
        yield
    finally:
        Hydra.get_mode = get_mode


@contextmanager
def importing() -> Iterator[None]:
    """Import modules without garbage collection, and leave their objects out of all later ones: they live until the end.

    One collection visits every object that there is, some hundred thousand after the imports. Without this block they take
    a third of the time from the command to the first call of the network, and a second at the end.
    """
    if IMPORTED.is_set():  # a later job of a sweep: its modules are there, and what the last job left is to be collected
        yield
        return
    IMPORTED.set()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def help_of(script: str, overrides: Sequence[str]) -> str:
    """The help of `script` from its yaml, as Hydra would print it. Hydra lists every group first, which takes a second."""
    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        config = compose(script, [*overrides], return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    template = string.Template(config.hydra.help.template)
    with open_dict(config):
        del config["hydra"]
    return template.substitute(CONFIG=OmegaConf.to_yaml(config))


def prior_from_file(argument: str, hub: bool = False) -> list[str]:
    """prior=PATH → the option of conf/prior that reads such a file, and the path. Other arguments are returned unchanged.

    With `hub`, so is prior=owner/name, where there is no such path: the prior is fetched, or found in the cache. Raises Stop where
    that cannot be done.
    """
    key, _, value = argument.partition("=")
    if key != "prior" or not value or (PROJECT / "conf" / "prior" / f"{value}.yaml").is_file():
        return [argument]
    if not os.path.exists(value) and not (hub and NAME.fullmatch(value)):
        return [argument]
    with errors.refusing():
        path = path_or_hub(value)
    option = option_for(path)
    return [f"prior={option.name}", f"{option.key}={quoted(value if os.path.exists(value) else str(path))}"]


def check_overrides(script: str, arguments: Sequence[str]) -> Namespace:
    """The options that Hydra reads from `arguments`.

    Raises Stop for overrides that Hydra takes for faults of its own: what names no group of `script`, no option and no folder.
    """
    of_hydra = get_args_parser()
    of_hydra.error = _refuse  # type: ignore[method-assign]  # it would print a page
    options_of_hydra, others = of_hydra.parse_known_args(arguments)
    if others:
        raise Stop(f"{' '.join(others)} is not understood; write all overrides in one piece, and see --help for the options")
    if script not in SCRIPTS or options_of_hydra.config_name or options_of_hydra.config_path:
        return options_of_hydra  # another configuration than the script's own, and perhaps other groups
    parser = OverridesParser.create()
    for argument in options_of_hydra.overrides:
        try:
            override = parser.parse_override(argument)
        except HydraException as error:
            raise Stop(f"{printable(argument, 100)} is no override: {one_line(error)}") from error
        group, value = override.key_or_group, override.value()
        wrong = None if override.package else hint(script, group.split(".")[0])
        if wrong is not None:
            raise Stop(f"{wrong}; leave out {argument}")
        _check_value(script, argument, group, value)
    return options_of_hydra


def _refuse(message: str) -> NoReturn:
    raise Stop(f"{message}; see --help")


def _check_value(script: str, argument: str, group: str, value: object) -> None:
    if not group or (group.startswith("hydra/") and not isinstance(value, str | list | dict)):
        raise Stop(f"{argument} is no override; write group=option or key=value")
    known, names = options(group), value if isinstance(value, list) else [value]
    if known and "=" in argument and any(isinstance(name, bool | int | float | NoneType) for name in names):
        key = argument.split("=")[0]
        raise Stop(f"{argument} names no option; choose one of {', '.join(known)}, as in {key}={known[0]}")
    if group in ("experiment", "data") and misplaced(script, group, value):
        raise Stop(f"{misplaced(script, group, value)}; leave out {argument}")
    if group == "output_dir" and isinstance(value, bool | int | float | list | dict):
        raise Stop(f"{argument} names no folder; for a folder of that name write output_dir=./{value}")


def end(error: Exception) -> NoReturn:
    """Print one line on standard error and exit."""
    if WANTS_TRACEBACK:
        raise error
    print(f"error: {one_line(error)}", file=sys.stderr)
    sys.exit(getattr(error, "code", REFUSED))


def one_line(error: BaseException) -> str:
    """The message of an error on one line. Those of Hydra and OmegaConf have several."""
    if isinstance(error, MissingConfigException) and error.options is not None:
        words = error.missing_cfg_file.split("/")
        parts = 2 if words[0] == "hydra" else 1  # hydra/launcher is a group; ffhq256/dps_box is an option in a folder of its group
        group, option = "/".join(words[:parts]), "/".join(words[parts:])
        return f"{group}={option} is unknown; choose one of {', '.join(error.options)}"
    return errors.one_line(error)
