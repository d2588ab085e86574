"""How commands declare what they take: frozen dataclasses whose fields are options, arguments and keys of ``--set``.

A group may hold other groups; those that several commands share are in this folder.   A command is a group that runs.
``changed`` and ``restored`` write a group to a sidecar and read it back.
"""

import math
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, is_dataclass
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
)  # fmt: skip

import typer

from audioldm.errors import AudioLDMError

T = TypeVar("T", bound="Group")


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


Kind = Literal["option", "argument", "setting"]


@dataclass(frozen=True)
class About:
    """What the command line knows of a field beside its type and default."""

    help: str
    names: tuple[str, ...] = ()
    metavar: str | None = None
    within: Between | None = None
    kind: Kind = "option"
    hidden: bool = False


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
    return field(**values, metadata={"about": About(help, names, form, within, kind, hidden)})


def argument(default: Any, help: str, *notes: str | Between) -> Any:
    """A field that is a positional argument."""
    return option(default, help, *notes, kind="argument")


def setting(default: Any, help: str, *notes: str | Between) -> Any:
    """A field that is a key of ``--set``."""
    return option(default, help, *notes, kind="setting")


def out_option(default: Any, form: str, help: str) -> Any:
    """Where results go."""
    return option(Path(default) if isinstance(default, str) else default, help, "-o", form)


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Group:
    """Options that belong together; every subclass is a frozen dataclass."""

    panel: ClassVar[str | None] = None
    __dataclass_fields__: ClassVar[dict[str, "Field[Any]"]]

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True, kw_only=True)(cls)


class Command(Group):
    """A command: its fields are what it takes, its docstring is its help, ``run`` does it."""

    function: ClassVar[Callable[..., None]]
    """as typer takes it"""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.function = staticmethod(function_of(cls))

    def run(self) -> None:
        """Do it."""
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


SET = About("Any other setting; audioldm samplers lists them.  Repeatable.", ("--set",), "KEY=VALUE")


def function_of(command: type[Command]) -> Callable[..., None]:
    """A command as typer takes it: every field a parameter, the settings together one ``--set``."""
    every = list(leaves(command))
    keys = {leaf.name: leaf for leaf in every if leaf.about.kind == "setting"}
    visible = [leaf.parameter() for leaf in every if leaf.name not in keys]
    if keys:
        visible.append(Leaf("set", list[str], [], SET, "Sampling").parameter())

    def run(**values: Any) -> None:
        values |= read_settings(values.pop("set", None) or [], keys)
        for leaf in every:
            leaf.check(values.get(leaf.name))
        build(command, values).run()

    run.__doc__ = command.__doc__
    run.__signature__ = Signature(visible)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in visible}
    run.settings = keys  # type: ignore[attr-defined]
    return run


def group(help: str | None, commands: Mapping[str, type[Command]], **details: Any) -> typer.Typer:
    """A group of commands; ``help`` is what it says of itself."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True, help=help, **details)
    for name, command in commands.items():
        app.command(name)(command.function)
    return app


@dataclass(frozen=True)
class Leaf:
    """One field of a group that is no group itself."""

    name: str
    hint: Any
    default: Any
    about: About
    panel: str | None

    def parameter(self) -> Parameter:
        """As a keyword of typer's."""
        about, default = self.about, self.default
        silent = any(default is nothing for nothing in (None, MISSING, False)) or default in ("", [])
        shown = not silent and "[default" not in about.help
        details: dict[str, Any] = {"help": about.help, "metavar": about.metavar, "show_default": shown}
        if about.kind == "argument":
            note = typer.Argument(**details)
        else:
            long = (
                []
                if any(name.startswith("--") for name in about.names)
                else [f"--{self.name.replace('_', '-')}"]
            )
            note = typer.Option(
                *about.names, *long, hidden=about.hidden, rich_help_panel=self.panel, **details
            )
        return Parameter(
            self.name, Parameter.KEYWORD_ONLY, default=Parameter.empty if default is MISSING else default,
            annotation=Annotated[self.hint, note],
        )  # fmt: skip

    @property
    def bare(self) -> Any:
        """The type without None."""
        if get_origin(self.hint) in (Union, types.UnionType):
            return next(part for part in get_args(self.hint) if part is not type(None))
        return self.hint

    @property
    def is_list(self) -> bool:
        """Whether it may be repeated."""
        return get_origin(self.bare) is list

    @property
    def item(self) -> Any:
        """The type of one value."""
        return get_args(self.bare)[0] if self.is_list else self.bare

    @property
    def form(self) -> str:
        """How a value is written."""
        if self.about.metavar:
            return self.about.metavar
        if get_origin(self.item) is Literal:
            return "|".join(map(str, get_args(self.item)))
        return {bool: "true|false", int: "N", float: "X", Path: "PATH"}.get(self.item, "TEXT")

    def check(self, value: Any, place: str = "") -> None:
        """Raise AudioLDMError for numbers out of range; None is the model's own."""
        if self.about.within is not None and value is not None:
            name = self.name if self.about.kind == "setting" else self.name.replace("_", "-")
            for number in value if isinstance(value, list | tuple) else [value]:
                self.about.within.check(place or name, number)

    def read(self, value: Any, kind: Any = None) -> Any:
        """A value, or one item of it, from its text or from JSON.   Raises AudioLDMError."""
        try:
            return typed(value, kind or self.bare)
        except (ValueError, KeyError, TypeError) as error:
            raise AudioLDMError(
                f"{self.name}={value!r} cannot be.", f"Write {self.name}={self.form}."
            ) from error


TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


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


def leaves(group: type[Group]) -> Iterator[Leaf]:
    """The fields of a group: its own, those of its bases, then those of the groups in it."""
    hints, inner = get_type_hints(group), list[Any]()
    order = list(
        dict.fromkeys(name for base in group.__mro__ for name in vars(base).get("__annotations__", ()))
    )
    for one in sorted(all_fields(group), key=lambda one: order.index(one.name)):
        hint = hints[one.name]
        if is_dataclass(hint):
            inner.append(hint)
        elif "about" in one.metadata:
            yield Leaf(one.name, hint, default_of(one), one.metadata["about"], group.panel)
    for part in inner:
        yield from leaves(part)


def default_of(one: "Field[Any]") -> Any:
    """A field's default."""
    factory = one.default_factory
    return one.default if one.default is not MISSING or factory is MISSING else factory()


def build(group: type[T], values: dict[str, Any]) -> T:
    """A group from the values of its fields; what is missing has its default."""
    hints = get_type_hints(group)
    parts = {
        one.name: build(hints[one.name], values) if is_dataclass(hints[one.name]) else values[one.name]
        for one in all_fields(group)
        if is_dataclass(hints[one.name]) or one.name in values
    }
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
                values[one.name] = plain(value)
    return values


def plain(value: Any) -> Any:
    """A value as JSON can hold it."""
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value


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
