"""How commands declare what they take: frozen dataclasses whose fields are options, arguments and keys of ``--set``.

A group may hold other groups; those that several commands share are in this folder.   A command is a group that runs.
"""

import json
import math
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, is_dataclass, replace
from dataclasses import fields as all_fields
from inspect import Parameter, Signature
from pathlib import Path
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    TypeVar,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

import typer
from typer.core import TyperCommand

from audioldm.cli.console import show_json, show_text
from audioldm.errors import AudioLDMError

T = TypeVar("T", bound="Group")
Kind = Literal["option", "argument", "setting"]
TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class Between:
    """The numbers that an option may have, ``low`` itself not where ``above`` is true."""

    low: float
    high: float = math.inf
    above: bool = False

    def check(self, name: str, value: float) -> None:
        """Raise AudioLDMError for a value outside."""
        inside = self.low < value or (value == self.low and not self.above)
        if not (inside and value <= self.high and math.isfinite(value)):
            raise AudioLDMError(f"{name}={value:g} is out of range.", f"Use {self}.")

    def __str__(self) -> str:
        if self.above:
            return f"more than {self.low:g}" + (f" and at most {self.high:g}" if self.high < math.inf else "")
        return f"{self.low:g} to {self.high:g}" if self.high < math.inf else f"{self.low:g} or more"


SHARE = Between(0, 1)
POSITIVE = Between(0, above=True)


@dataclass(frozen=True)
class Leaf:
    """One field of a group: what ``option`` says of it, then its name, type, default and panel."""

    help: str
    names: tuple[str, ...] = ()
    metavar: str | None = None
    within: Between | None = None
    kind: Kind = "option"
    hidden: bool = False
    name: str = ""
    hint: Any = None
    default: Any = None
    panel: str | None = None

    def parameter(self) -> Parameter:
        help = self.text
        silent = self.default in (None, MISSING, "", []) or self.default is False
        shown = not silent and "[default" not in help
        about: dict[str, Any] = {"help": help, "metavar": self.metavar, "show_default": shown}
        if self.kind == "argument":
            note = typer.Argument(**about)
        else:
            is_long = any(name.startswith("--") for name in self.names)
            names = (*self.names, *([] if is_long else [f"--{self.name.replace('_', '-')}"]))
            note = typer.Option(*names, hidden=self.hidden, rich_help_panel=self.panel, **about)
        default = Parameter.empty if self.default is MISSING else self.default
        kind = Parameter.KEYWORD_ONLY
        return Parameter(self.name, kind, default=default, annotation=Annotated[self.hint, note])

    @property
    def text(self) -> str:
        repeats = self.is_list and self.kind != "argument"
        return f"{self.help}  Repeatable." if repeats else self.help

    @property
    def bare(self) -> Any:
        """The type without None."""
        if get_origin(self.hint) in (Union, types.UnionType):
            return next(part for part in get_args(self.hint) if part is not type(None))
        return self.hint

    @property
    def is_list(self) -> bool:
        return get_origin(self.bare) is list

    @property
    def item(self) -> Any:
        return get_args(self.bare)[0] if self.is_list else self.bare

    @property
    def form(self) -> str:
        if get_origin(self.item) is Literal:
            return "|".join(map(str, get_args(self.item)))
        kinds = {bool: "true|false", int: "N", float: "X", Path: "PATH"}
        return self.metavar or kinds.get(self.item, "TEXT")

    def check(self, value: Any, place: str = "") -> None:
        """Raise AudioLDMError for numbers out of range; None is the model's own."""
        if self.within is not None and value is not None:
            name = self.name if self.kind == "setting" else self.name.replace("_", "-")
            for number in value if isinstance(value, list | tuple) else [value]:
                self.within.check(place or name, number)

    def read(self, value: Any, kind: Any = None) -> Any:
        """A value, or one item of it, from its text or from JSON.   Raises AudioLDMError."""
        try:
            return typed(value, kind or self.bare)
        except (ValueError, KeyError, TypeError) as error:
            hint = f"Write {self.name}={self.form}."
            raise AudioLDMError(f"{self.name}={value!r} cannot be.", hint) from error


def typed(value: Any, kind: Any) -> Any:
    """A text, or what JSON held, as a ``kind``.   Raises ValueError, KeyError or TypeError where it is of another."""
    parts, origin = get_args(kind), get_origin(kind)
    if origin is Literal:
        return dict(zip(map(str, parts), parts, strict=True))[value]
    if origin in (list, tuple):
        values = value.strip("()[]").split(",") if isinstance(value, str) else list(value)
        kinds = parts * len(values) if origin is list else parts
        return origin(typed(*pair) for pair in zip(values, kinds, strict=True))
    if isinstance(value, str):
        return TRUTHS[value.lower()] if kind is bool else kind(value)
    if type(value) not in {float: (int, float)}.get(kind, (kind,)):
        raise ValueError(f"{value!r} is no {kind.__name__}")
    return kind(value)


def option(
    default: Any, help: str, *notes: str | Between, kind: Kind = "option", hidden: bool = False
) -> Any:
    """A field that is an option; ``...`` is no default.

    ``notes`` are names (``--its-name`` is added where there is no long one), how a value is written, and the numbers
    that it may be, in any order.
    """
    names = tuple(note for note in notes if isinstance(note, str) and note.startswith("-"))
    form = next((note for note in notes if isinstance(note, str) and note not in names), None)
    within = next((note for note in notes if isinstance(note, Between)), None)
    values: dict[str, Any] = {} if default is ... else {"default": default}
    if isinstance(default, list):
        values = {"default_factory": default.copy}
    return field(**values, metadata={"leaf": Leaf(help, names, form, within, kind, hidden)})


def argument(default: Any, help: str, *notes: str | Between) -> Any:
    """A field that is a positional argument."""
    return option(default, help, *notes, kind="argument")


def setting(default: Any, help: str, *notes: str | Between) -> Any:
    """A field that is a key of ``--set``."""
    return option(default, help, *notes, kind="setting")


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Group:
    """Options that belong together; every subclass is a frozen dataclass."""

    panel: ClassVar[str | None] = None
    __dataclass_fields__: ClassVar[dict[str, "Field[Any]"]]

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True, kw_only=True)(cls)

    def named(self) -> dict[str, Any]:
        """The values that were given where the default is None."""
        return {name: value for name, value in vars(self).items() if value is not None}


class Command(Group):
    """A command: its fields are what it takes, its docstring is its help, ``run`` does it."""

    function: ClassVar[Callable[..., None]]
    """as typer takes it"""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.function = staticmethod(function_of(cls))

    def run(self) -> None:
        raise NotImplementedError


class Force(Group):
    """May replace results."""

    force: bool = option(False, "Replace what is already there.")


class DryRun(Group):
    """Can say what it would do; every command that starts long work can."""

    dry_run: bool = option(False, "Check all, say what would be made, and make nothing.")


class AsJson(Group):
    """Prints for programs, too."""

    as_json: bool = option(False, "Print JSON.", "--json")

    def show(self, report: Any, text: str) -> None:
        if self.as_json:
            show_json(report)
        else:
            show_text(text)


def function_of(command: type[Command]) -> Callable[..., None]:
    """A command as typer takes it: every field a parameter, the settings together one ``--set``."""
    every = list(leaves(command))
    keys = {leaf.name: leaf for leaf in every if leaf.kind == "setting"}
    visible = [leaf.parameter() for leaf in every if leaf.name not in keys]
    if keys:
        help = "Any other setting; audioldm samplers lists them."
        visible.append(
            Leaf(
                help, name="set", metavar="KEY=VALUE", hint=list[str], default=[], panel="Sampling"
            ).parameter()
        )

    limited = [leaf for leaf in every if leaf.within is not None]
    is_flat = len(every) == len(all_fields(command))

    def run(**values: Any) -> None:
        if keys:
            values |= read_settings(values.pop("set", None) or [], keys)
        for leaf in limited:
            leaf.check(values.get(leaf.name))
        (command(**values) if is_flat else build(command, values)).run()

    run.__doc__ = command.__doc__
    run.__signature__ = Signature(visible)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in visible}
    run.settings = keys  # type: ignore[attr-defined]
    return run


class PanelCommand(TyperCommand):
    """A command whose help lists options in named panels; those of no panel come last."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, then each panel in the order of its first option."""
        panels: dict[str, list[tuple[str, str]]] = {"Arguments": []}
        for parameter in self.get_params(ctx):
            is_argument = parameter.param_type_name == "argument"
            panel = "Arguments" if is_argument else getattr(parameter, "rich_help_panel", None) or "Options"
            if (line := parameter.get_help_record(ctx)) is not None:
                panels.setdefault(panel, []).append(line)
        panels["Options"] = panels.pop("Options", [])
        for panel, lines in panels.items():
            if lines:
                with formatter.section(panel):
                    formatter.write_dl(lines)


def group(help: str | None, commands: Mapping[str, type[Command]], **details: Any) -> typer.Typer:
    app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True, help=help, **details)
    for name, command in commands.items():
        app.command(name, cls=PanelCommand)(command.function)
    return app


def leaves(group: type[Group]) -> Iterator[Leaf]:
    """The fields of a group: its own, those of its bases, then those of the groups in it."""
    hints, inner = get_type_hints(group), list[Any]()
    order = [name for base in group.__mro__ for name in vars(base).get("__annotations__", ())]
    for one in sorted(all_fields(group), key=lambda one: order.index(one.name)):
        if is_dataclass(hint := hints[one.name]):
            inner.append(hint)
        elif "leaf" in one.metadata:
            leaf, default = one.metadata["leaf"], default_of(one)
            yield replace(leaf, name=one.name, hint=hint, default=default, panel=group.panel)
    for part in inner:
        yield from leaves(part)


def default_of(one: "Field[Any]") -> Any:
    return one.default if one.default_factory is MISSING else one.default_factory()


def build(group: type[T], values: dict[str, Any]) -> T:
    """A group from the values of its fields; what is missing has its default."""
    hints, parts = get_type_hints(group), dict[str, Any]()
    for one in all_fields(group):
        if is_dataclass(hints[one.name]):
            parts[one.name] = build(hints[one.name], values)
        elif one.name in values:
            parts[one.name] = values[one.name]
    return group(**parts)


def changed(*groups: Group) -> dict[str, Any]:
    """Every option of these groups that has not its default, as JSON can hold it; ``restored`` reads it back."""
    values: dict[str, Any] = {}
    for group in groups:
        for one in all_fields(group):
            value = getattr(group, one.name)
            if isinstance(value, Group):
                values |= changed(value)
            elif value != default_of(one):
                values[one.name] = json.loads(json.dumps(value, default=str))
    return values


def restored(group: type[T], values: dict[str, Any]) -> T:
    """A group from what ``changed`` gave.   Raises AudioLDMError for a value of another type or out of range."""
    read: dict[str, Any] = {}
    for leaf in leaves(group):
        if leaf.name in values:
            read[leaf.name] = leaf.read(values[leaf.name])
            leaf.check(read[leaf.name])
    return build(group, read)


def read_settings(words: list[str], keys: dict[str, Leaf]) -> dict[str, Any]:
    """``KEY=VALUE`` words as typed values.   Raises AudioLDMError for an unknown key or a value of another type."""
    values: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or name not in keys:
            raise AudioLDMError(f"--set {word}: {name!r} is no setting here.", f"Known: {', '.join(keys)}.")
        value = keys[name].read(text.strip(), keys[name].item)
        keys[name].check(value)
        values[name] = [*values.get(name, []), value] if keys[name].is_list else value
    return values


def weighted(
    text: str, option: str, default: list[float], between: Between | None = None
) -> tuple[str, list[float]]:
    """What ``text`` names and the numbers behind its last colon, without doubles.

    >>> weighted("wind:0,0.5", "interpolate-to", [0.5]), weighted("C:/a.wav", "audio-prompt", [1.0])
    (('wind', [0.0, 0.5]), ('C:/a.wav', [1.0]))
    """
    name, colon, tail = text.rpartition(":")
    try:
        numbers = [float(part) for part in tail.split(",")] if colon else default
    except ValueError:
        colon, numbers = "", default
    name = (name if colon else text).strip()
    if not name:
        raise AudioLDMError(f"{option}={text!r} is empty.", "Give a name, then perhaps a colon and a number.")
    for number in numbers:
        (between or Between(-math.inf)).check(f"{option} {name}", number)
    return name, list(dict.fromkeys(numbers))
