"""Every command that starts long work says with ``--dry-run`` what it would do, and does nothing."""

import pytest
import typer

from audioldm.cli import app as commands

SHORT = {
    "app": "serves until it is stopped",
    "listen serve": "serves until it is stopped",
    "serve": "serves until it is stopped",
    "mcp": "serves until it is stopped",
    "samplers": "a list",
    "recipes": "a list",
    "doctor": "a list",
    "evaluate embedders": "a list",
    "evaluate bits": "numbers of a cache: a minute",
    "evaluate protocol": "reads a table",
    "data attribution": "reads a table",
    "data listen": "some sounds, drawn: seconds",
    "data stats": "numbers of a cache: seconds",
    "listen analyse": "numbers of answers: seconds",
    "report": "one page: seconds",
    "adapter show": "one small file",
    "adapter convert": "one small file",
    "ema": "one average of files: seconds",
}
"""Commands without --dry-run, and why."""


def tree(group, path=()):
    for name in group.commands:
        child = group.get_command(None, name)
        if hasattr(child, "commands"):
            yield from tree(child, (*path, name))
        else:
            yield " ".join((*path, name)), child


EVERY = dict(tree(typer.main.get_command(commands.app)))


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
    import json

    import numpy as np
    import soundfile

    monkeypatch.chdir(tmp_path)
    (tmp_path / "sounds").mkdir()
    (tmp_path / "captioner").mkdir()
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
    assert command(*words[:-1], "--dry-run", "--no-such") == 2
