"""Options that several commands share, one group a file: a frozen dataclass whose fields are annotated for typer."""

from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import wraps
from inspect import Parameter, signature
from typing import Any, get_type_hints


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` with every parameter that is a group replaced by the fields of the group.

    The command is written with few parameters, ``def vary(file: ..., sampling: Sampling, output: Output)``; typer sees
    one option per field.   A group may hold groups.
    """
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    flat: dict[str, Parameter] = {}
    for name, own in signature(command).parameters.items():
        if name in groups:
            flat |= parameters(groups[name])
        else:
            flat[name] = own.replace(annotation=hints[name], kind=Parameter.KEYWORD_ONLY)

    @wraps(command)
    def run(**given: Any) -> None:
        parts = {name: filled(group, given) for name, group in groups.items()}
        command(**given, **parts)

    run.__signature__ = signature(command).replace(parameters=list(flat.values()))  # type: ignore[attr-defined]
    run.__annotations__ = {name: own.annotation for name, own in flat.items()}
    return run


def parameters(group: type[Any]) -> dict[str, Parameter]:
    """Every field of a group as a keyword of a command; a field that is a group gives its own."""
    found: dict[str, Parameter] = {}
    for field, hint in hinted(group):
        found |= parameters(hint) if is_dataclass(hint) else {field.name: parameter(field, hint)}
    return found


def filled(group: type[Any], given: dict[str, Any]) -> Any:
    """The group, its fields taken out of ``given``."""
    return group(
        **{
            field.name: filled(hint, given) if is_dataclass(hint) else given.pop(field.name)
            for field, hint in hinted(group)
        }
    )


def hinted(group: type[Any]) -> list[tuple["Field[Any]", Any]]:
    """Each field of a group with its annotation."""
    hints = get_type_hints(group, include_extras=True)
    return [(field, hints[field.name]) for field in fields(group)]


def parameter(field: "Field[Any]", hint: Any) -> Parameter:
    """One field as a keyword of a command."""
    default = field.default if field.default is not MISSING else field.default_factory()  # type: ignore[misc]
    return Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=hint)
