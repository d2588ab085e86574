"""``python -m recipes.embedded.prepare``: what cannot be had is named, and the rest is made."""

import json

from audioldm.cli.app import run
from recipes.embedded.prepare import app


def main(words):
    return run(words, app)


def test_opensounds_without_network_or_room(tmp_path, monkeypatch, capsys):
    index = tmp_path / "i.jsonl"
    line = {
        "package": "game",
        "member": "a.wav",
        "caption": "a",
        "label": "b",
        "author": "c",
        "md5": "0" * 32,
    }
    index.write_text(json.dumps(line | {"licence": "CC0-1.0"}))
    table = [{"name": "game", "registry": "deb", "version": "1", "mb": 5}]
    index.with_suffix(".packages.json").write_text(json.dumps(table))
    monkeypatch.setenv("PATH", str(tmp_path))
    words = [
        "--index",
        index,
        "-o",
        tmp_path / "m.jsonl",
        "--to",
        tmp_path / "out",
        "--cache",
        tmp_path / "cache",
    ]
    assert main(["opensounds", *map(str, words)]) == 1
    assert "later: game (1 sounds not made" in capsys.readouterr().err
    assert main(["opensounds", *map(str, (*words, "--max-mb", 4))]) == 1
    assert "skipped: game (5 MB; --max-mb 4)" in capsys.readouterr().err
    assert main(["opensounds", *map(str, (*words, "--packages", "gmae"))]) == 2
    assert "gmae" in capsys.readouterr().err


def test_scenes_of_tones(tmp_path, capsys):
    tones, scenes = tmp_path / "tones.jsonl", tmp_path / "scenes.jsonl"
    words = ["--notes", "0", "--speech", "0", "--tones", "40", "-o", str(tones), "--to", str(tmp_path / "t")]
    assert main(["rendered", *words]) == 0
    assert main(["composed", str(tones), "-n", "4", "-o", str(scenes), "--to", str(tmp_path / "s")]) == 0
    rows = [json.loads(line) for line in scenes.read_text().split("\n") if line]
    assert rows and all(len(row["parts"]) >= 1 and row["source"] == "composed" for row in rows)
    assert main(["composed", str(tones), "-n", "4", "-o", str(scenes)]) == 2
    assert "is already there" in capsys.readouterr().err
    assert main(["rendered", "--notes", "-1", "-o", str(tmp_path / "x.jsonl")]) == 2
    assert main(["rendered", "--colour", "red"]) == 2
