"""A fault that nobody expected is one line with exit code 1, and its trace with --debug."""

import pytest

from audioldm.cli import generate as module
from audioldm.cli.console import printable


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("two\nlines\x1b[0m"), r"unexpected ValueError: two. Run it again with --debug"),
        (RuntimeError(""), "unexpected RuntimeError"),
        (MemoryError(), "the memory is full (MemoryError). Ask for less"),
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

    monkeypatch.setattr(module, "check", fail)
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
