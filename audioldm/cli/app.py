"""The command ``audioldm``: which commands there are, how their help looks, and what becomes of a mistake."""

import sys
from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

import audioldm
from audioldm.cli.console import say
from audioldm.cli.startup import repeated_interrupts
from audioldm.errors import AudioLDMError

COMMANDS = {
    "generate": "audioldm.cli.generate:generate",
    "edit": "audioldm.cli.edit:edit",
    "app": "audioldm.app.command:serve",
    "samplers": "audioldm.cli.samplers:samplers",
    "recipes": "audioldm.cli.recipes_cmd:recipes",
    "train": "audioldm.cli.train:train",
    "ema": "audioldm.cli.ema:ema",
    "data": "audioldm.cli.data:app",
    "evaluate": "audioldm.cli.evaluate:evaluate",
    "listen": "audioldm.cli.listen:app",
    "report": "audioldm.cli.report:report",
    "export": "audioldm.cli.export:export",
    "adapter": "audioldm.cli.adapter:app",
    "bench": "audioldm.cli.bench:bench",
    "doctor": "audioldm.cli.doctor:doctor",
}
"""Name to ``module:function`` or ``module:typer app``; a module is imported when its command is asked for."""

JOINED = {
    "data": {"encode": "audioldm.cli.encode:encode", "stats": "audioldm.cli.encode:stats"},
    "evaluate": {"score": "audioldm.cli.score:score"},
}
"""Commands that join a group of another module: ``audioldm data encode`` needs nets, the rest of ``data`` does not."""


class LazyCommands(MutableMapping[str, Any]):
    """The commands of a group, each imported on first use: none waits for the imports of another."""

    def __init__(self, places: dict[str, str]) -> None:
        self.places = places
        self.loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self.loaded:
            self.loaded[name] = load_command(name, self.places[name])
        return self.loaded[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self.places[name], self.loaded[name] = "", command

    def __delitem__(self, name: str) -> None:
        del self.places[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


def load_command(name: str, where: str) -> Any:
    """The command at ``module:attribute``, whether a function or a typer app."""
    module, attribute = where.split(":")
    part = getattr(import_module(module), attribute)
    if not isinstance(part, typer.Typer):
        function, part = part, typer.Typer(add_completion=False, rich_markup_mode=None)
        part.command(name)(function)
    for registered in part.registered_commands:
        registered.cls = PanelCommand
    command: Any = typer.main.get_command(part)
    command.name = name
    for member, place in JOINED.get(name, {}).items():
        command.add_command(load_command(member, place), member)
    return command


class PanelCommand(TyperCommand):
    """A command whose help lists options in named panels; those of no panel come last."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, then each panel in the order of its first option."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            is_argument = parameter.param_type_name == "argument"
            panel = "Arguments" if is_argument else getattr(parameter, "rich_help_panel", None) or "Options"
            if (line := parameter.get_help_record(ctx)) is not None:
                panels.setdefault(panel, []).append(line)
        plain = panels.pop("Options", [])
        if panels.keys() - {"Arguments"}:
            plain = [line for line in plain if not line[0].startswith("--help")]  # it was found
        for panel, lines in {**panels, "Options": plain}.items():
            if lines:
                with formatter.section(panel):
                    formatter.write_dl(lines)


class LazyGroup(TyperGroup):
    """A typer group over ``COMMANDS``."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = LazyCommands(dict(COMMANDS))


app = typer.Typer(
    cls=LazyGroup,
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def show_version(wanted: bool) -> None:
    """Print the version and leave."""
    if wanted:
        print(f"audioldm {audioldm.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Print the version and exit."),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; goes with every command.")
    ] = False,
) -> None:
    """Text to sound by latent diffusion: generate, train, measure.

    \b
    Examples:
      audioldm generate "a dog barking"
      audioldm generate --help
      audioldm recipes
      audioldm doctor

    Exit codes: 0 done, 1 failed while working, 2 wrong use (nothing was started), 130 interrupted.
    """


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code; a mistake or a fault becomes one line on stderr."""
    debug = "--debug" in arguments
    arguments = [word for word in arguments if word != "--debug"]
    try:
        with repeated_interrupts():
            code = typer.main.get_command(app).main(
                args=arguments, prog_name="audioldm", standalone_mode=False
            )
    except typer.TyperException as error:
        return say_usage(error, arguments)
    except (typer.Abort, KeyboardInterrupt):
        code = 130
    except Exception as error:
        if debug:
            raise
        return say_error(error)
    if code == 130:
        say("interrupted; every file already reported is complete.")
    return code if isinstance(code, int) else 0


def say_error(error: Exception) -> int:
    """One line about what ended a command, and its exit code: 1 for what nobody expected."""
    if isinstance(error, AudioLDMError):
        say(str(error))
        return error.code
    first = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, OSError):
        say(
            f"{f'{error.filename}: ' if error.filename else ''}{error.strerror or first or type(error).__name__}."
        )
    else:
        say(
            f"unexpected {type(error).__name__}: {first[:300]}. Run it again with --debug for the whole trace."
        )
    return 1


def say_usage(error: typer.TyperException, arguments: list[str]) -> int:
    """Print a command-line mistake as one line; a bare group prints its help instead."""
    message = error.format_message().rstrip(".").replace("Value error, ", "")
    if "Usage:" in message:
        print(message, file=sys.stderr)
    else:
        command = " ".join(["audioldm", *(word for word in arguments[:1] if word in COMMANDS)])
        say(f"{message}. See: {command} --help")
    return error.exit_code


def main() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))
