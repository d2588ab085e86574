"""How commands declare what they take: frozen dataclasses whose fields are options, arguments and keys of ``--set``.

A group may hold other groups; those that several commands share are in this folder.   A command is a group that runs.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, replace
from dataclasses import fields as all_fields
from functools import partial
from inspect import cleandoc
from pathlib import Path
from types import NoneType
from typing import Any, ClassVar, Literal, TypeVar, dataclass_transform, get_args, get_origin, get_type_hints

import click

from audioldm.cli.console import show_json, show_text
from audioldm.errors import AudioLDMError
from audioldm.ranges import POSITIVE as POSITIVE  # with these names a command declares all that it takes
from audioldm.ranges import SAMPLING
from audioldm.ranges import SHARE as SHARE
from audioldm.ranges import Between as Between
from audioldm.ranges import weighted as weighted

T = TypeVar("T", bound="Group")


@dataclass(frozen=True)
class Leaf:
    """One field of a group: what ``option`` says of it, then its name, type (without None), default and panel."""

    help: str
    names: tuple[str, ...] = ()
    metavar: str | None = None
    within: Between | None = None
    kind: Literal["option", "argument", "setting"] = "option"
    hidden: bool = False
    name: str = ""
    hint: Any = None
    default: Any = None
    panel: str = "Options"

    @property
    def is_list(self) -> bool:
        return get_origin(self.hint) is list

    @property
    def item(self) -> Any:
        return get_args(self.hint)[0] if self.is_list else self.hint

    @property
    def form(self) -> str:
        """How a value is written."""
        choices = get_args(self.item) if get_origin(self.item) is Literal else ()
        kinds = {bool: "true|false", int: "N", float: "X", Path: "PATH"}
        return self.metavar or "|".join(choices) or kinds.get(self.item, "TEXT")

    def parameter(self) -> click.Parameter:
        about: dict[str, Any] = {"type": click_type(self.item), "metavar": self.metavar, "help": self.help}
        about["required"] = self.default is MISSING
        if self.is_list:
            about["callback"] = lambda _, __, value: list(value or ())
        if self.kind == "argument":
            return click.Argument([self.name], nargs=-1 if self.is_list else 1, **about)
        shown = None if "[default" in self.help else self.default
        if self.hint is bool:
            about["is_flag"] = True
        elif shown not in (None, MISSING, "", []):
            about["help"] += f"  [default: {shown}]"
        long = [f"--{self.name.replace('_', '-')}"] * ("--" not in "".join(self.names))
        about |= {"multiple": self.is_list, "hidden": self.hidden}
        parameter: Any = click.Option((self.name, *self.names, *long), **about)
        parameter.panel = self.panel
        return parameter

    def check(self, value: Any, place: str = "") -> None:
        """Raise AudioLDMError for numbers out of range; None is the model's own."""
        if self.within is not None and value is not None:
            name = self.name if self.kind == "setting" else self.name.replace("_", "-")
            for number in value if isinstance(value, list | tuple) else [value]:
                self.within.check(place or name, number)

    def read(self, value: Any, hint: Any = None, *, place: str = "") -> Any:
        """A value of this or another type from its text or from JSON.   Raises AudioLDMError."""
        try:
            return typed(value, hint or self.hint)
        except (ValueError, TypeError, click.BadParameter) as error:
            what = f"{place or self.name}={value!r} cannot be."
            raise AudioLDMError(what, f"Write {self.name}={self.form}.") from error


def click_type(hint: Any) -> Any:
    if get_origin(hint) is Literal:
        return click.Choice(get_args(hint))
    return click.Path(path_type=Path) if hint is Path else get_args(hint) or hint


def typed(value: Any, hint: Any) -> Any:
    """A text, or what JSON held, as a ``hint``.   Raises ValueError, TypeError or BadParameter."""
    parts, origin = get_args(hint), get_origin(hint)
    if origin in (list, tuple):
        values = value.strip("()[]").split(",") if isinstance(value, str) else list(value)
        hints = parts * len(values) if origin is list else parts
        return origin(typed(*pair) for pair in zip(values, hints, strict=True))
    if not isinstance(value, str if hint in (str, Path) else str | int | float):
        raise ValueError(f"{value!r} is no {hint}")
    return click.types.convert_type(click_type(hint)).convert(str(value), None, None)


def option(default: Any, help: str, *notes: str | Between, **about: Any) -> Any:
    """A field that is an option; ``...`` is no default.

    ``notes`` are names (``--its-name`` is added where there is no long one), how a value is written, and the numbers
    that it may be, in any order.
    """
    names = tuple(note for note in notes if isinstance(note, str) and note.startswith("-"))
    form = next((note for note in notes if isinstance(note, str) and note not in names), None)
    within = next((note for note in notes if isinstance(note, Between)), None)
    default = MISSING if default is ... else default
    values = {"default_factory": default.copy} if isinstance(default, list) else {"default": default}
    return field(**values, metadata={"leaf": Leaf(help, names, form, within, default=default, **about)})


argument = partial(option, kind="argument")
setting = partial(option, kind="setting")


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Group:
    """Options that belong together, each in its range; every subclass is a frozen dataclass."""

    panel: ClassVar[str] = "Options"
    plain: ClassVar[dict[str, Leaf]]  # its fields that are no groups, those of its bases last
    inner: ClassVar[dict[str, type["Group"]]]
    limited: ClassVar[tuple[Leaf, ...]]
    __dataclass_fields__: ClassVar[dict[str, "Field[Any]"]]

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True, kw_only=True)(cls)
        hints, cls.plain, cls.inner = get_type_hints(cls), {}, {}
        order = [name for base in cls.__mro__ for name in vars(base).get("__annotations__", ())]
        for one in sorted(all_fields(cls), key=lambda one: order.index(one.name)):
            hint = hints[one.name]
            if Group in getattr(hint, "__mro__", ()):
                cls.inner[one.name] = hint
                continue
            leaf = one.metadata["leaf"]
            hint = next((part for part in get_args(hint) if NoneType in get_args(hint)), hint)
            repeats = "  Repeatable." * (get_origin(hint) is list) * (leaf.kind != "argument")
            about = {"help": leaf.help + repeats, "name": one.name, "hint": hint, "panel": cls.panel}
            within = leaf.within or SAMPLING.get(one.name)  # what the sampler takes has its ranges
            cls.plain[one.name] = replace(leaf, within=within, **about)
        cls.limited = tuple(leaf for leaf in cls.plain.values() if leaf.within)

    def __post_init__(self) -> None:
        for leaf in self.limited:
            leaf.check(getattr(self, leaf.name))

    def named(self) -> dict[str, Any]:
        """The values that were given where the default is None."""
        return {name: value for name, value in vars(self).items() if value is not None}


SETTINGS = Leaf(
    "Any other setting; audioldm samplers lists them.  Repeatable.",
    ("--set",), "KEY=VALUE", name="settings", hint=list[str], default=[], panel="Sampling",
)  # fmt: skip


class PanelCommand(click.Command):
    """A command whose help lists options in named panels; those of no panel come last."""

    settings: Mapping[str, Leaf]  # the keys of its ``--set``

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        panels: dict[str, list[tuple[str, str]]] = {}
        for option in self.get_params(ctx):
            if isinstance(option, click.Option) and (line := option.get_help_record(ctx)) is not None:
                panels.setdefault(getattr(option, "panel", "Options"), []).append(line)
        panels["Options"] = panels.pop("Options", [])
        for panel, lines in panels.items():
            with formatter.section(panel):
                formatter.write_dl(lines)


class Command(Group):
    """A command: its fields are what it takes, its docstring is its help, ``run`` does it."""

    click: ClassVar[PanelCommand]
    """as it is typed: every field a parameter, the settings together one ``--set``"""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        every = list(leaves(cls))
        keys = {leaf.name: leaf for leaf in every if leaf.kind == "setting"}
        parameters = [leaf for leaf in every if leaf.kind != "setting"] + [SETTINGS] * bool(keys)

        def call(**values: Any) -> None:
            if keys:
                values |= read_settings(values.pop("settings"), keys)
            build(cls, values).run()

        text = cleandoc(cls.__doc__ or "").replace("\n\nExample", "\n\n\b\nExample")  # lines stay lines
        cls.click = PanelCommand(
            None, params=[leaf.parameter() for leaf in parameters], callback=call, help=text
        )
        cls.click.settings = keys

    def run(self) -> None:
        raise NotImplementedError


class Force(Group):
    force: bool = option(False, "Replace what is already there.")

    def check_free(self, *paths: Path | None) -> None:
        """Raise AudioLDMError if one of ``paths`` exists, unless it may be overwritten."""
        present = [path for path in paths if path is not None and path.exists()]
        if present and not self.force:
            more = f" (and {len(present) - 1} more)" if len(present) > 1 else ""
            hint = "Pass --force to replace it, or name another place."
            raise AudioLDMError(f"{present[0]} is already there{more}.", hint)


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


class CommandGroup(click.Group):
    """Commands in the order in which they were named; words that name none go to the ``default`` one."""

    default = ""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if self.default and args and args[0] not in (*self.commands, "-h", "--help"):
            args = [self.default, *args]
        return super().parse_args(ctx, args)


def group(help: str | None, kinds: Sequence[type[Command]], default: str = "") -> CommandGroup:
    """Commands below one name, called as their classes are."""
    listed = CommandGroup(no_args_is_help=True, help=cleandoc(help or ""))
    listed.default = default
    for command in kinds:
        listed.add_command(command.click, command.__name__.lower())
    return listed


def leaves(group: type[Group]) -> Iterator[Leaf]:
    """The fields of a group, and of the groups in it."""
    yield from group.plain.values()
    for part in group.inner.values():
        yield from leaves(part)


def build(group: type[T], values: Mapping[str, Any]) -> T:
    """A group from the values of its fields; what is missing, None or [] has its default.   Raises AudioLDMError."""
    inner = {name: build(part, values) for name, part in group.inner.items()}
    return group(**inner, **{n: v for n, v in values.items() if n in group.plain and v not in (None, [])})


def changed(*groups: Group) -> dict[str, Any]:
    """Every option of these groups that has not its default, as JSON can hold it; ``restored`` reads it back."""
    values: dict[str, Any] = {}
    for group in groups:
        values |= changed(*(getattr(group, name) for name in group.inner))
        for name, leaf in group.plain.items():
            if (value := getattr(group, name)) != leaf.default:
                values[name] = json.loads(json.dumps(value, default=str))
    return values


def restored(group: type[T], values: Mapping[str, Any]) -> T:
    """A group from what ``changed`` gave.   Raises AudioLDMError for a value of another type or out of range."""
    known = (leaf for leaf in leaves(group) if leaf.name in values)
    return build(group, {leaf.name: leaf.read(values[leaf.name]) for leaf in known})


def read_settings(words: Sequence[str], keys: Mapping[str, Leaf]) -> dict[str, Any]:
    """``KEY=VALUE`` words as typed values.   Raises AudioLDMError for an unknown key or a value of another type."""
    values: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or name not in keys:
            raise AudioLDMError(f"--set {word}: {name!r} is no setting here.", f"Known: {', '.join(keys)}.")
        value = keys[name].read(text.strip(), keys[name].item)
        values[name] = [*values.get(name, []), value] if keys[name].is_list else value
    return values
