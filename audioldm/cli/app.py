"""The command ``audioldm``: which commands there are, how their help looks, and what becomes of a mistake."""

import os
import sys
import threading
from pkgutil import resolve_name

import click

import audioldm
from audioldm.cli.console import say, warned
from audioldm.cli.options import CommandGroup
from audioldm.cli.startup import leave, repeat_interrupts
from audioldm.errors import AudioLDMError, without_memory

COMMANDS = {
    "generate": "cli.generate:Generate.click", "edit": "cli.edit:app", "caption": "cli.caption:Caption.click",
    "app": "app.page:Serve.click", "serve": "serve.command:Serve.click", "mcp": "serve.agent:Agent.click",
    "samplers": "cli.machine:Samplers.click", "recipes": "cli.runs:Recipes.click", "train": "cli.runs:Train.click",
    "ema": "cli.runs:Ema.click", "data": "cli.data:app", "evaluate": "cli.evaluate:app", "listen": "cli.listen:app",
    "export": "cli.export:Export.click", "adapter": "cli.export:adapter", "bench": "cli.machine:Bench.click",
    "doctor": "cli.machine:Doctor.click",
}  # fmt: skip
"""Name to the place of a command or of a group of commands, which is imported when it is asked for."""


class LazyGroup(CommandGroup):
    """The group over ``COMMANDS``: none waits for the imports of another."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = resolve_name(f"audioldm.{COMMANDS[cmd_name]}")
        command.name = cmd_name
        return command


ROOT_HELP = """Text to sound by latent diffusion: generate, train, measure.

\b
Examples:
  audioldm generate "a dog barking"
  audioldm generate --help
  audioldm recipes
  audioldm doctor

Exit codes: 0 done, 1 failed while working, 2 wrong use (nothing was started), 130 interrupted.
"""
app = LazyGroup(
    commands=dict.fromkeys(COMMANDS),  # type: ignore[arg-type]   # click guesses by these names
    params=[click.Option(["--debug"], is_flag=True, help="Show an error's traceback; goes with every command.")],
    help=ROOT_HELP, no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)  # fmt: skip
app = click.version_option(audioldm.__version__, prog_name="audioldm", message="%(prog)s %(version)s")(app)


def run(arguments: list[str], commands: click.Command = app) -> int:
    """Run one command line and return its exit code; a mistake or a fault becomes one line on stderr."""
    debug = "--debug" in arguments
    arguments = list(filter("--debug".__ne__, arguments))
    try:
        with warned():
            code = commands.main(args=arguments, prog_name="audioldm", standalone_mode=False)
    except click.ClickException as error:
        return say_usage(error, arguments)
    except (click.Abort, KeyboardInterrupt):
        code = 130
    except SystemExit as error:
        code = code_of(error)
    except BaseException as error:  # a panic of a library in Rust is no Exception
        if debug:
            raise
        return say_error(error)
    if code == 130:
        say("interrupted; every file already reported is complete.")
    return code if isinstance(code, int) else 0


def code_of(error: SystemExit) -> int | None:
    # that of a library may be a message
    return error.code if isinstance(error.code, int | None) else say_error(RuntimeError(error.code))


def say_error(error: BaseException) -> int:
    """One line about what ended a command, and its exit code: 1 for what nobody expected."""
    if isinstance(error, AudioLDMError):
        say(str(error))
        return error.code
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("audioldm"):
        say(f"{str(error.name).partition('.')[0]} is not installed. audioldm doctor says how to add it.")
        return 2
    memory = without_memory(error)
    error = memory or error
    kind = type(error).__name__
    reason = next(iter(str(error).strip().splitlines()), kind)
    if isinstance(error, OSError):
        say(f"{': '.join(map(str, filter(None, (error.filename, error.strerror or reason))))}.")
    elif memory is not None:
        say(f"the memory is full ({reason[:160]}). Ask for less at once, or free some.")
    else:
        say(f"unexpected {kind}: {reason[:300]}. Run it again with --debug for the whole trace.")
    return 1


def say_usage(error: click.ClickException, arguments: list[str]) -> int:
    """Print a command-line mistake as one line; a bare group prints its help instead."""
    message = error.format_message().rstrip(".")
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        print(message, file=sys.stderr)
    else:
        command = " ".join(["audioldm", *(word for word in arguments[:1] if word in COMMANDS)])
        say(f"{message}. See: {command} --help")
    return error.exit_code


def main() -> None:
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by who started it
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    repeat_interrupts()
    threading.excepthook = lambda ended: ended.exc_value and say_error(ended.exc_value)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    leave(run(sys.argv[1:]))
