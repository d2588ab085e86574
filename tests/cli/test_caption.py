"""``audioldm caption``: tables, files that cannot be read, nets of another CLAP, and CapFilt."""

import csv
import json
from pathlib import Path

import pytest
import soundfile
import torch

from audioldm.cli.caption import SHIPPED
from audioldm.convert.reference import open_part
from audioldm.nets.captioner import build_captioner
from audioldm.nets.clap import in_space
from audioldm.nets.folder import save_component

SOUNDS = Path(__file__).parents[2] / "docs" / "sounds"


@pytest.fixture
def captioner(tiny_model: Path, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    clap = open_part(tiny_model, "clap")
    net = build_captioner(clap, ["a dog barking", "rain"], width=16, queries=2, layers=(1, 1))
    save_component(net, tmp_path / "captioner")
    return tmp_path / "captioner"


@pytest.fixture
def caption(command, tiny_model, captioner):
    return lambda *words: command("caption", *words, "-m", tiny_model, "--captioner", captioner)


@pytest.fixture
def wave(tmp_path: Path) -> Path:
    rng = torch.Generator().manual_seed(0)
    soundfile.write(tmp_path / "noise.wav", 0.1 * torch.randn(16000, generator=rng).numpy(), 16000)
    return tmp_path / "noise.wav"


def test_one_bad_file_never_ends_the_run(caption, wave, tmp_path, capsys):
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    soundfile.write(tmp_path / "silent.wav", torch.zeros(16000).numpy(), 16000)
    files = [tmp_path / "bad.wav", tmp_path / "none.wav", tmp_path / "silent.wav", wave]
    tables = ("--csv", tmp_path / "t.csv")
    assert caption(*files, *tables) == 1
    printed, err = capsys.readouterr()
    assert printed.startswith(str(wave))
    assert all(name in err for name in ("bad.wav", "none.wav", "silent.wav is silent", "3 of 4 files"))
    [row] = csv.DictReader((tmp_path / "t.csv").open())
    assert row["file"] == str(wave) and 0 <= float(row["match"]) <= 1
    assert caption(wave, *tables) == 2, "the table is there"
    assert caption(wave, "--json") == 0
    [same] = json.loads(capsys.readouterr().out)
    assert row == {key: str(value) for key, value in same.items()}


def test_nets_that_are_missing_or_of_another_clap_are_refused(
    command, caption, captioner, tmp_path, wave, capsys
):
    assert command("caption", wave, "--captioner", tmp_path / "nothing") == 2
    assert "audioldm train caption/captioner" in capsys.readouterr().err
    config = captioner / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "clap": "other"}))
    assert caption(wave) == 2
    assert "another CLAP" in capsys.readouterr().err


def test_filter_keeps_the_better_caption_of_train_rows(caption, wave, tmp_path, capsys):
    about = {"path": wave.name, "captions": ["rain"]}
    source, target = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    rows = ({**about, "split": split, "group": split} for split in ("train", "val"))
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert caption(source, "--filter", target, "--dry-run") == 0
    assert "1 captions of" in capsys.readouterr().err and not target.exists()
    words = ("--beams", "1", "--json")
    assert caption(wave, *words) == 0
    [new] = json.loads(capsys.readouterr().out)
    assert caption(source, "--filter", target, *words) == 0
    train, val = map(json.loads, target.read_text().splitlines())
    assert val["captions"] == ["rain"]
    changed = "1 of 1" in capsys.readouterr().out
    assert train["captions"] == ([new["text"]] if changed else ["rain"])
    assert caption(wave, "--filter", tmp_path / "c.jsonl", *words) == 2


def test_the_embedded_models_captioner_names_sounds_without_any_option(command, tiny_model, capsys):
    files = sorted(SOUNDS.glob("*.mp3"))
    assert command("caption", *files) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(files) == len(lines) >= 3
    for file, line in zip(files, lines, strict=True):
        _, text, match = line.split("\t")
        noun = next(word for word in ("dog", "rooster", "clock") if word in file.stem)
        assert noun in text and float(match) > 0.5, line
    assert not in_space(SHIPPED, open_part(tiny_model, "clap"))
