"""Options that several commands share: a group is a frozen dataclass whose fields are annotated for typer.

A field annotated with ``typer.Option`` is an option of its own; one annotated with ``Setting`` is a key of ``--set``.
Either may carry the numbers that it can have (``Between``).
"""

import math
import types
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import typer

from audioldm.errors import AudioLDMError

Group = TypeVar("Group")
PANEL = "Sampling"


@dataclass(frozen=True)
class Setting:
    """A key of ``--set``: what it does, and how its value is written."""

    help: str
    metavar: str = ""


@dataclass(frozen=True)
class Between:
    """The numbers that an option may have, ``low`` itself not where ``above`` is true."""

    low: float
    high: float = math.inf
    above: bool = False

    def check(self, name: str, value: float) -> None:
        """Raise AudioLDMError for a value outside."""
        if self.low <= value <= self.high and math.isfinite(value) and not (self.above and value == self.low):
            return
        low = f"more than {self.low:g}" if self.above else f"{self.low:g}"
        upper = " or more" if self.high == math.inf else f" to {self.high:g}"
        if self.above:
            upper = "" if self.high == math.inf else f" and at most {self.high:g}"
        raise AudioLDMError(f"{name}={value:g} is out of range.", f"Use {low}{upper}.")


SetOption = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        show_default=False,
        help="Any other setting; audioldm samplers lists them.  Repeatable.",
        rich_help_panel=PANEL,
    ),
]


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` with every parameter that is a group replaced by the group's options and one ``--set``."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type[Any]] = {
        name: hint for name, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint)
    }
    keys = {key: hint for group in groups.values() for key, hint in settings_of(group).items()}
    flat: dict[str, Parameter] = {}
    for name, parameter in signature(command).parameters.items():
        if name in groups:
            flat |= {field.name: as_parameter(field, hint) for field, hint in leaves(groups[name])}
        else:
            flat[name] = parameter.replace(annotation=hints[name], kind=Parameter.KEYWORD_ONLY)
    visible = {name: parameter for name, parameter in flat.items() if name not in keys}
    if keys:
        visible["set"] = Parameter("set", Parameter.KEYWORD_ONLY, default=[], annotation=SetOption)

    @wraps(command)
    def run(**values: Any) -> None:
        values |= read_settings(values.pop("set", None) or [], keys)
        for name, parameter in flat.items():
            check_range(name, parameter.annotation, values.get(name))
        parts = {name: build(group, values) for name, group in groups.items()}
        command(**{name: values[name] for name in flat if name in hints.keys() - groups.keys()}, **parts)

    run.__signature__ = signature(command).replace(parameters=list(visible.values()))  # type: ignore[attr-defined]
    run.settings = keys  # type: ignore[attr-defined]
    run.__annotations__ = {name: parameter.annotation for name, parameter in visible.items()}
    return run


def leaves(group: Any) -> Iterator[tuple["Field[Any]", Any]]:
    """Each field of a group with its annotation; a field that is a group gives its own."""
    hints = get_type_hints(group, include_extras=True)
    for field in fields(group):
        hint = hints[field.name]
        yield from leaves(hint) if is_dataclass(hint) else [(field, hint)]


def settings_of(group: Any) -> dict[str, Any]:
    """The keys of ``--set`` that a group has, with their annotations."""
    return {field.name: hint for field, hint in leaves(group) if metadata(hint, Setting)}


def metadata(hint: Any, kind: type[Group]) -> Group | None:
    """What an annotation carries of ``kind``."""
    return next((note for note in getattr(hint, "__metadata__", ()) if isinstance(note, kind)), None)


def default_of(field: "Field[Any]") -> Any:
    """A field's default."""
    if field.default is not MISSING or field.default_factory is MISSING:
        return field.default
    return field.default_factory()


def as_parameter(field: "Field[Any]", hint: Any) -> Parameter:
    """One field as a keyword of a command."""
    return Parameter(field.name, Parameter.KEYWORD_ONLY, default=default_of(field), annotation=hint)


def build(group: type[Group], values: dict[str, Any]) -> Group:
    """A group from the values of its fields; what is missing has its default."""
    hints = get_type_hints(group, include_extras=True)
    parts = {
        field.name: build(hints[field.name], values)
        if is_dataclass(hints[field.name])
        else values[field.name]
        if field.name in values
        else default_of(field)
        for field in fields(group)  # type: ignore[arg-type]
    }
    return group(**parts)


def changed(*groups: Any) -> dict[str, Any]:
    """Every option of these groups that has not its default, as JSON can hold it; ``restored`` reads it back."""
    values: dict[str, Any] = {}
    for group in groups:
        for field in fields(group):
            value = getattr(group, field.name)
            if is_dataclass(value):
                values |= changed(value)
            elif value != default_of(field):
                values[field.name] = [str(v) if isinstance(v, Path) else v for v in value] if isinstance(
                    value, list | tuple
                ) else str(value) if isinstance(value, Path) else value  # fmt: skip
    return values


def restored(group: type[Group], values: dict[str, Any]) -> Group:
    """A group from what ``changed`` gave.   Raises AudioLDMError for a value of another type or out of range."""
    read: dict[str, Any] = {}
    for field, hint in leaves(group):
        if field.name in values:
            value = values[field.name]
            words = value if is_list(hint) and isinstance(value, list) else [value]
            texts = [",".join(map(str, word)) if isinstance(word, list) else str(word) for word in words]
            read |= read_settings([f"{field.name}={text}" for text in texts], {field.name: hint})
    return build(group, read)


def read_settings(words: list[str], keys: dict[str, Any]) -> dict[str, Any]:
    """``KEY=VALUE`` words as typed values.   Raises AudioLDMError for an unknown key or a value of another type."""
    values: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or name not in keys:
            raise AudioLDMError(f"--set {word}: {name!r} is no setting here.", f"Known: {', '.join(keys)}.")
        value = read_value(name, text.strip(), keys[name])
        check_range(name, keys[name], value)
        values[name] = [*values.get(name, []), value] if is_list(keys[name]) else value
    return values


def read_value(name: str, text: str, hint: Any) -> Any:
    """One value of ``--set`` by the type of its field."""
    kind = item_type(hint)
    try:
        if get_origin(kind) is Literal:
            return {str(choice): choice for choice in get_args(kind)}[text]
        if get_origin(kind) is tuple:
            low, high = (float(part) for part in text.strip("()[]").split(","))
            return low, high
        if kind is bool:
            return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[
                text.lower()
            ]
        return kind(text)
    except (ValueError, KeyError) as error:
        raise AudioLDMError(f"{name}={text!r} cannot be.", f"Write {name}={form_of(hint)}.") from error


def bare(hint: Any) -> Any:
    """The type of an annotation without its notes and without None."""
    kind = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(part for part in get_args(kind) if part is not type(None))
    return kind


def is_list(hint: Any) -> bool:
    """Whether a setting may be repeated."""
    return get_origin(bare(hint)) is list


def item_type(hint: Any) -> Any:
    """The type of one value."""
    return get_args(bare(hint))[0] if is_list(hint) else bare(hint)


def form_of(hint: Any) -> str:
    """How the value of a setting is written."""
    kind, note = item_type(hint), metadata(hint, Setting)
    if note is not None and note.metavar:
        return note.metavar
    if get_origin(kind) is Literal:
        return "|".join(map(str, get_args(kind)))
    return {bool: "true|false", int: "N", float: "X", Path: "PATH"}.get(kind, "TEXT")


def check_range(name: str, hint: Any, value: Any) -> None:
    """Raise AudioLDMError for numbers that the annotation does not allow; None is the model's own."""
    between = metadata(hint, Between)
    if between is not None and value is not None:
        for number in value if isinstance(value, list | tuple) else [value]:
            between.check(name.replace("_", "-") if metadata(hint, Setting) is None else name, number)


def weighted(
    text: str, option: str, default: list[float], between: Between | None = None
) -> tuple[str, list[float]]:
    """What ``text`` names and the numbers behind its last colon, without doubles.

    >>> weighted("wind:0,0.5", "interpolate-to", [0.5]), weighted("C:/a.wav", "audio-prompt", [1.0])
    (('wind', [0.0, 0.5]), ('C:/a.wav', [1.0]))
    """
    name, colon, tail = text.rpartition(":")
    try:
        numbers = [float(part) for part in tail.split(",")]
    except ValueError:
        name, numbers = text, default
    if not colon:
        name, numbers = text, default
    if not name.strip():
        raise AudioLDMError(f"{option}={text!r} is empty.", "Give a name, then perhaps a colon and a number.")
    for number in numbers:
        (between or Between(-math.inf)).check(f"{option} {name.strip()}", number)
    return name.strip(), list(dict.fromkeys(numbers))
