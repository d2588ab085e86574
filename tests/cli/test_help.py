"""Help is quick, lists every command, and each example in it is a command line that parses."""

import re
import resource
import shlex

import pytest
import typer

from audioldm.cli import app as commands

HEAVY = ("torch", "numpy", "diffusers", "transformers", "lightning", "hydra", "matplotlib", "soundfile")


def leaves(group: object, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], object]:
    """Every command below ``group``, by its words."""
    matches: dict[tuple[str, ...], object] = {}
    for name in group.commands:
        words, child = (*path, name), group.get_command(None, name)
        matches |= leaves(child, words) if hasattr(child, "commands") else {words: child}
    return matches


def tree() -> dict[tuple[str, ...], object]:
    return leaves(typer.main.get_command(commands.app))


def examples(command: object) -> list[str]:
    """The command lines that a help text shows."""
    lines = [line.strip() for line in (command.help or "").splitlines()]
    return [line for line in lines if re.match(r"^(echo .*\| *)?audioldm ", line)]


def test_help_lists_every_command(command, capsys):
    assert command("--help") == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"^  {name} ", shown, re.M) for name in commands.COMMANDS)


def test_no_command_shows_help_and_is_wrong_use(command, capsys):
    assert command() == 2
    assert "Usage: audioldm" in capsys.readouterr().err


@pytest.mark.parametrize("words", [()] + [(name,) for name in commands.COMMANDS], ids=" ".join)
def test_help_needs_nothing_heavy_and_answers_at_once(python, words):
    code = f"""
import sys
from audioldm.cli.app import run
code = run({[*words, "--help"]!r})
heavy = [name for name in {HEAVY!r} if name in sys.modules]
print("heavy:", heavy, file=sys.stderr)
sys.exit(code)
"""
    begin = children_seconds()
    done = python(code)
    elapsed = children_seconds() - begin
    assert done.returncode == 0, done.stderr
    assert "heavy: []" in done.stderr
    assert elapsed < 0.7, (
        "processor time, which a busy machine stretches a little; 0.2 s where this was written"
    )


def children_seconds() -> float:
    """Processor time of all finished child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_every_command_has_examples_that_parse():
    for words, leaf in tree().items():
        lines = examples(leaf)
        assert lines, f"audioldm {' '.join(words)} --help has no example"
        for line in lines:
            parse(line)


def parse(line: str) -> None:
    """Parse one example down to its command without running it; a typer usage error fails the test."""
    parts = shlex.split(re.split(r"\s{3,}", line)[0], comments=True)  # what follows a gap is a remark
    parts = parts[parts.index("audioldm") + 1 :]
    parts = parts[: next((i for i, part in enumerate(parts) if part in (">", "|", "&&", "2>")), len(parts))]
    group, context = typer.main.get_command(commands.app), None
    while hasattr(group, "commands") and parts and parts[0] in group.commands:
        group, parts = group.get_command(None, parts[0]), parts[1:]
    if "--help" not in parts and not hasattr(group, "commands"):
        context = group.make_context("audioldm", list(parts))
        context.close()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("generat",), "Did you mean 'generate'?"),
        (("generate", "x", "--stepss", "3"), "--steps"),
        (("generate", "x", "--steps", "many"), "--steps"),
        (("generate", "x", "--sampler"), "--sampler"),
    ],
)
def test_wrong_use_is_one_line_with_the_way_to_help(command, capsys, words, expected):
    assert command(*words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert expected in err
    assert "--help" in err


def test_version(command, capsys):
    import audioldm

    assert command("--version") == 0
    assert capsys.readouterr().out == f"audioldm {audioldm.__version__}\n"


def test_doctor_names_parts_devices_and_caches(command, capsys, monkeypatch, tmp_path):
    import json

    (tmp_path / "audioldm").mkdir()
    (tmp_path / "audioldm" / "net.bin").write_bytes(b"x" * 1234)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert command("doctor", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["needed"]["torch"].startswith("2.11")
    assert "WAV" in report["codecs"]
    assert report["devices"][0].startswith("cpu")
    assert report["caches"]["embedders"] == {"path": str(tmp_path / "audioldm"), "bytes": 1234}
    assert report["offline"] is True, "the tests run without the hub"


def test_doctor_tells_how_to_add_what_is_missing(monkeypatch, capsys, command):
    from audioldm.cli import doctor

    asked = ["torch>=2", "soundfile", "no-such-train==1 ; extra == 'train'", "rich; extra == 'eval'"]
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: asked)
    assert command("doctor") == 0
    shown = capsys.readouterr().out
    assert re.search(r'extra train   incomplete: pip install .*\[train\]"', shown)
    assert "extra eval\n" in shown
    asked.append("no-such-package")
    assert command("doctor") == 1
    assert "MISSING: pip install" in capsys.readouterr().out


def test_doctor_says_when_the_package_itself_is_not_installed(monkeypatch, capsys, command):
    from audioldm.cli import doctor

    def absent(name):
        raise doctor.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.metadata, "requires", absent)
    monkeypatch.setattr(doctor.metadata, "version", absent)
    assert command("doctor") == 1
    assert "MISSING: pip install" in capsys.readouterr().out


def test_recipes_list_show_and_compose(command, capsys):
    assert command("recipes") == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("tiny/ldm") for line in lines)
    assert all(len(line.split(maxsplit=1)) == 2 for line in lines), (
        "every recipe says in its first line what it is"
    )
    assert command("recipes", "tiny/ldm") == 0
    assert "# @package _global_" in capsys.readouterr().out
    assert command("train", "tiny/ldm", "--cfg", "job") == 0
    assert "${" not in capsys.readouterr().out.split("run_dir")[0]
    assert command("recipes", "tiny/nothing") == 2
    assert "tiny/ldm" in capsys.readouterr().err
