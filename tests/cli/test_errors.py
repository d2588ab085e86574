"""A fault that nobody expected is one line with exit code 1, and its trace with --debug."""

import subprocess
import sys

import pytest

from audioldm.cli import generate as module
from audioldm.cli.console import printable


def while_handling(first: Exception, second: Exception) -> Exception:
    """A fault that came up because of another."""
    second.__context__ = first
    return second


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("two\nlines\x1b[0m"), r"unexpected ValueError: two. Run it again with --debug"),
        (RuntimeError(""), "unexpected RuntimeError"),
        (MemoryError(), "the memory is full (MemoryError). Ask for less"),
        (RuntimeError("could not create a primitive"), "the memory is full (could not create a primitive)"),
        (while_handling(MemoryError(), RuntimeError("no loader")), "the memory is full (MemoryError)"),
        (
            RuntimeError("unable to mmap 9 bytes: Cannot allocate memory (12)"),
            "the memory is full (unable to mmap",
        ),
        (OSError(28, "No space left on device", "out/x.wav"), "out/x.wav: No space left on device."),
    ],
)
def test_an_unexpected_fault_is_one_line(command, capsys, monkeypatch, error, expected):
    def fail(*_):
        raise error

    monkeypatch.setattr(module.Generate, "check", fail)
    assert command("generate", "rain") == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and expected in err
    with pytest.raises(type(error)):
        command("generate", "rain", "--debug")


def test_debug_goes_before_and_after_every_command(command):
    assert command("doctor", "--json", "--debug") == 0
    assert command("--debug", "doctor", "--json") == 0


@pytest.mark.parametrize("text", ["a\x1b[2Jb", "a\nb", "a\u202eb", "a\udcffb", "a\x85b", "a\u2028b"])
def test_nothing_that_steers_a_terminal_is_printed(text):
    shown = printable(text)
    assert shown.isprintable() and shown.startswith("a\\") and shown.endswith("b")
    assert printable("café 雨 – ok") == "café 雨 – ok"


def test_a_name_in_broken_bytes_is_one_line(command, capsys, tmp_path):
    assert command("generate", "--prompts", f"{tmp_path}/\udcff.txt") == 2
    assert capsys.readouterr().err.count("\n") == 1


class Panic(BaseException):
    """As libraries in Rust raise it."""


@pytest.mark.parametrize(
    ("error", "code", "expected"),
    [
        (Panic("index out of bounds"), 1, "unexpected Panic: index out of bounds"),
        (SystemExit("usage: no such word"), 1, "unexpected RuntimeError: usage: no such word"),
        (SystemExit(3), 3, ""),
        (RecursionError("maximum depth"), 1, "unexpected RecursionError"),
    ],
)
def test_what_is_no_exception_is_one_line_too(command, capsys, monkeypatch, error, code, expected):
    def fail(*_):
        raise error

    monkeypatch.setattr(module.Generate, "check", fail)
    assert command("generate", "rain") == code
    err = capsys.readouterr().err
    assert expected in err and err.count("\n") == bool(expected)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_command_whose_streams_are_closed_ends_without_a_trace(closed, tmp_path):
    words = f"{sys.executable} -m audioldm generate - --dry-run {closed} 2>{tmp_path}/err"
    done = subprocess.run(
        ["bash", "-c", f"({words}) </dev/null"], capture_output=True, text=True, timeout=120
    )
    said = done.stderr + (tmp_path / "err").read_text()
    assert done.returncode == 2 and "Traceback" not in said and "holds no prompt" in said
