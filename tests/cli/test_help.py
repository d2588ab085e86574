"""Help is quick and lists every command; every command that starts long work can say what it would do."""

import json
import re
import resource

import numpy as np
import pytest
import soundfile

from audioldm.cli import app as commands
from audioldm.cli import machine

HEAVY = ("torch", "numpy", "diffusers", "transformers", "lightning", "hydra", "matplotlib", "soundfile")
SHORT = {
    **dict.fromkeys(("app", "listen serve", "serve", "mcp"), "serves until it is stopped"),
    **dict.fromkeys(("samplers", "recipes", "doctor", "evaluate embedders"), "a list"),
    **dict.fromkeys(("evaluate protocol", "data attribution"), "reads a table"),
    **dict.fromkeys(("adapter show", "adapter convert", "ema"), "files: seconds"),
    **dict.fromkeys(("data listen", "listen analyse"), "a page or numbers: seconds"),
    "evaluate bits": "numbers of a cache: a minute",
}
"""Commands without --dry-run, and why."""


def tree(group, path=()):
    for name in group.commands:
        child = group.get_command(None, name)
        if hasattr(child, "commands"):
            yield from tree(child, (*path, name))
        else:
            yield " ".join((*path, name)), child


EVERY = dict(tree(commands.app))


def test_help_lists_every_command_and_none_shows_it(command, capsys):
    assert command("--help") == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"^  {name} ", shown, re.M) for name in commands.COMMANDS)
    assert command() == 2
    assert "Usage: audioldm" in capsys.readouterr().err


def test_help_of_generate_is_short_and_in_panels(command, capsys):
    assert command("generate", "--help") == 0
    shown = capsys.readouterr().out
    assert len(re.findall(r"^  -", shown, re.M)) <= 25 + 1, "--help beside 25"
    panels = re.findall(r"^(\w[\w ]+):$", shown, re.M)
    assert panels[-7:] == [
        "Prompt", "Sampling", "Guidance", "Conditioning on sound", "Output", "Model and device", "Options",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "words", [(), ("generate",), ("edit",), ("train",), ("evaluate",), ("serve",)], ids=" ".join
)
def test_help_answers_at_once(python, words):
    begin = children_seconds()
    done = python(f"import sys; from audioldm.cli.app import run; sys.exit(run({[*words, '--help']!r}))")
    assert done.returncode == 0, done.stderr
    # processor time, which a busy machine stretches a little; 0.2 s where this was written
    assert children_seconds() - begin < 0.7


def test_no_help_needs_anything_heavy(python):
    done = python(f"""
import sys
from audioldm.cli.app import run
for name in {list(commands.COMMANDS)!r}:
    assert run([name, "--help"]) == 0
    heavy = [module for module in {HEAVY!r} if module in sys.modules]
    assert not heavy, (name, heavy)
""")
    assert done.returncode == 0, done.stderr


def children_seconds() -> float:
    """Processor time of all finished child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


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
    assert out == "" and err.count("\n") == 1
    assert expected in err and "--help" in err


def test_version(command, capsys):
    import audioldm

    assert command("--version") == 0
    assert capsys.readouterr().out == f"audioldm {audioldm.__version__}\n"


@pytest.mark.parametrize("name", EVERY)
def test_long_work_has_a_dry_run(name):
    has = any("--dry-run" in parameter.opts for parameter in EVERY[name].params)
    assert has != (name in SHORT), "either it has --dry-run, or SHORT says why not"


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("data", "check", "sounds"), "2 rows would be checked, 0 are left out already"),
        (("data", "shard", "mine.jsonl", "-o", "shards", "--split", "{split}"), "would be written below shards"),
        (("listen", "prepare", "a=sounds", "b=sounds", "-o", "t"), "a test of a, b (ab) would be made in t"),
        (("evaluate", "sounds", "sounds", "--unpaired", "-o", "report"), "would be scored against 2 of sounds"),
        (("export", "{model}", "-o", "m"), "would be written to m"),
        (("caption", "sounds/tone 0.wav", "no.wav", "--captioner", "captioner"), "1 of 2 files would be captioned"),
        (("bench", "-m", "{model}", "--steps", "3"), "1 clips of 'a dog barking', 3 times after a warm-up"),
    ],
)  # fmt: skip
def test_a_dry_run_says_what_and_leaves_nothing(
    words, what, command, tiny_model, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    for name in ("sounds", "captioner"):
        (tmp_path / name).mkdir()
    (tmp_path / "captioner" / "config.json").write_text("{}")
    for number, hertz in enumerate((220, 330)):
        tone = 0.2 * np.sin(2 * np.pi * hertz * np.arange(16000) / 16000)
        soundfile.write(tmp_path / "sounds" / f"tone {number}.wav", tone, 16000)
    assert command("data", "prepare", "folder", "sounds", "-o", "mine.jsonl") == 0
    split = json.loads((tmp_path / "mine.jsonl").read_text().splitlines()[0])["split"]
    capsys.readouterr()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    words = [word.replace("{model}", str(tiny_model)).replace("{split}", split) for word in words]
    assert command(*words, "--dry-run") == 0
    out, err = capsys.readouterr()
    assert what in err and "dry run" in err and out == ""
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_doctor_names_parts_devices_and_caches(command, capsys, monkeypatch, tmp_path):
    (tmp_path / "audioldm").mkdir()
    (tmp_path / "audioldm" / "net.bin").write_bytes(b"x" * 1234)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert command("doctor", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["needed"]["torch"].startswith("2.11")
    assert report["devices"][0].startswith("cpu")
    assert report["caches"]["embedders"] == {"path": str(tmp_path / "audioldm"), "bytes": 1234}
    assert report["offline"] is True, "the tests run without the hub"


def test_doctor_tells_how_to_add_what_is_missing(monkeypatch, capsys, command):
    asked = ["torch>=2", "soundfile", "no-such-train==1 ; extra == 'train'", "rich; extra == 'eval'"]
    monkeypatch.setattr(machine.metadata, "requires", lambda name: asked)
    assert command("doctor") == 0
    shown = capsys.readouterr().out
    assert re.search(r'extra train   incomplete: pip install .*\[train\]"', shown)
    assert "extra eval\n" in shown
    asked.append("no-such-package")
    assert command("doctor") == 1
    assert "MISSING: pip install" in capsys.readouterr().out

    def absent(name):
        raise machine.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(machine.metadata, "requires", absent)
    monkeypatch.setattr(machine.metadata, "version", absent)
    assert command("doctor") == 1, "the package itself is not installed"
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
