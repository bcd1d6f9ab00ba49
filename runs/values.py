"""Values from outside (a configuration, a card) against the annotations of the arguments that they are for."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from typing import Annotated, Any, get_type_hints

from pydantic import ConfigDict, Field, PydanticUserError, TypeAdapter, ValidationError

from diffusion_priors.runs.printable import printable

Count = Annotated[int, Field(le=10**9)]
"""A number of things. Constructors say where it starts."""
Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""What PyTorch and NumPy both take as a seed."""
Text = Annotated[str, Field(min_length=1)]
Texts = Text | Annotated[list[Text], Field(min_length=1)]
"""One path or several: nothing is not a path."""

FINITE = ConfigDict(allow_inf_nan=False)
LARGEST = 1e30
"""Single precision ends at 3e38, and squares are taken."""
LONGEST_VALUE = 100


def check_arguments(values: Mapping[str, Any], target: Callable, name: str = "") -> None:
    """Compare `values` with the annotations of `target`'s arguments of the same names.

    Raises ValueError at the first value that does not fit, for a name that is no argument, and for a missing argument.
    """
    check_values(values, target, name)
    absent = [key for key in required(target) if key not in values]
    if absent:
        raise ValueError(f"{dotted(name, absent[0])} is missing; {target.__name__} takes {', '.join(arguments(target))}")


def check_values(values: Mapping[str, Any], target: Callable, name: str = "") -> None:
    """Like `check_arguments`, but arguments may be missing."""
    hints = argument_hints(target)
    for key, value in values.items():
        if key not in hints:
            raise ValueError(f"{dotted(name, key)} is unknown; {target.__name__} takes {', '.join(hints)}")
        check_value(dotted(name, key), value, hints[key])


def check_value(name: str, value: Any, hint: Any) -> None:
    """Strict, like JSON: a text is no number, a number no text, and 2.5 no count. Lists stand for tuples.

    Numbers must be finite. Raises ValueError that shows the value and what is wanted instead.
    """
    try:
        _adapter(hint).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        raise ValueError(f"{name}={shown(value)} is {_wanted(error)}{_advice(name, value, error)}") from None
    except (TypeError, ValueError, RecursionError) as error:  # what JSON cannot hold: a date, bytes, a list within itself
        raise ValueError(f"{name} is of the wrong kind: {printable(str(error), LONGEST_VALUE)}") from None
    for number in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(number, (int, float)) and abs(number) > LARGEST:
            raise ValueError(f"{name}={shown(value)} is out of bounds: numbers must lie between -{LARGEST:g} and {LARGEST:g}")


def _adapter(hint: Any) -> TypeAdapter:
    try:
        return TypeAdapter(hint, config=FINITE)
    except PydanticUserError:  # a class stands in the annotation, which is no matter of values
        return TypeAdapter(Any)


def _wanted(error: ValidationError) -> str:
    """What is wrong, of all the alternatives; a bound that is broken says more than a kind that is another."""
    found = error.errors()
    bounds = [one for one in found if not one["type"].endswith("_type") and one["type"] != "literal_error"]
    messages = dict.fromkeys(
        "it has too few items" if one["type"] == "missing" else one["msg"][0].lower() + one["msg"][1:] for one in bounds or found
    )
    return f"{'out of bounds' if bounds else 'of the wrong kind'}: {' or '.join(list(messages)[:2])}"


def _advice(name: str, value: Any, error: ValidationError) -> str:
    number = isinstance(value, (bool, int, float))
    wants_text = any(one["type"] == "string_type" for one in error.errors())
    return f"; for the text {shown(value)} write {name}=\"'{shown(value)}'\"" if number and wants_text else ""


def shown(value: Any) -> str:
    """A value as a message shows it."""
    return printable(repr(value) if isinstance(value, str) else json.dumps(value, default=str), LONGEST_VALUE)


def dotted(name: str, key: object) -> str:
    return f"{name}.{key}" if name else str(key)


def arguments(target: Callable) -> dict[str, inspect.Parameter]:
    """The arguments of a class or function that have a name. What *args and **kwargs gather has none."""
    gathering = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {name: p for name, p in inspect.signature(target).parameters.items() if p.kind not in gathering}


def required(target: Callable) -> list[str]:
    """The arguments that have no default."""
    return [name for name, p in arguments(target).items() if p.default is p.empty]


def argument_hints(target: Callable) -> dict[str, Any]:
    """Argument → its annotation, Any where it has none."""
    hints = annotations(target if is_dataclass(target) or not inspect.isclass(target) else target.__init__)
    return {name: hints.get(name, Any) for name in arguments(target)}


def annotations(target: Callable) -> dict[str, Any]:
    """The annotations of a function; none where they name what cannot be imported, as those for a type checker alone."""
    try:
        return get_type_hints(target, include_extras=True)
    except (NameError, TypeError, AttributeError):
        return {}
