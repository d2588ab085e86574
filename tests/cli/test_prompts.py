"""``--prompts``: settings per row, encodings and line ends as people make them, and what is refused by its row."""

import io
import json
import os
import sys
import unicodedata

import numpy as np
import pytest
import soundfile

from audioldm import tables
from audioldm.errors import AudioLDMError

TABLE = """prompt,seed,seconds,steps,guidance,negative,out
"a dog, barking",7,0.4,2,1.5,wind,dogs/one.flac
rain,,,,,,
"""


def test_a_row_has_its_own_settings(records, out, tmp_path):
    path = tmp_path / "many.csv"
    path.write_text(TABLE)
    dog, rain = records("--prompts", path, "--seed", "3")
    assert (dog["audio"], dog["prompt"], dog["seed"]) == (str(out / "dogs/one.flac"), "a dog, barking", 7)
    asked = {"seconds": 0.4, "steps": 2, "guidance": 1.5, "negative": "wind"}
    assert asked.items() <= dog["settings"].items()
    assert soundfile.info(out / "dogs/one.flac").frames == 6400
    assert (rain["seed"], rain["settings"]["steps"], rain["settings"]["seconds"]) == (4, 2, 0.2)
    (alone,) = records("rain", "--seed", "4", "--force")
    assert alone["sound"]["sha256"] == rain["sound"]["sha256"]


def test_jsonl_has_the_same_columns_and_a_sound_may_be_the_prompt(records, sound, tmp_path):
    lines = [{"prompt": "rain", "steps": 1, "seed": None}, {"audio_prompt": f"{sound}:1", "out": "like"}]
    (tmp_path / "many.jsonl").write_text("\n\n".join(map(json.dumps, lines)))
    rain, like = records("--prompts", tmp_path / "many.jsonl")
    assert rain["settings"]["steps"] == 1 and "audio_prompt" not in rain["settings"]
    assert like["settings"]["audio_prompt"]["share"] == 1 and like["audio"].endswith("/like.wav")


@pytest.mark.parametrize("kind", ["txt", "csv", "-"])
def test_texts_as_people_make_them(records, tmp_path, monkeypatch, kind):
    """Every encoding and line end is in tests/datasets/test_tables.py."""
    lines = ["prompt"] * (kind == "csv") + ["café", "", "rain"]
    data = ("\r\n".join(lines) + "\r\n").encode("cp1252")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    (tmp_path / f"many.{kind}").write_bytes(data)
    where = "-" if kind == "-" else tmp_path / f"many.{kind}"
    assert [row["prompt"] for row in records("--prompts", where, "--dry-run")] == ["café", "rain"]


def test_standard_input_may_be_a_table(records, monkeypatch):
    for text in ('{"prompt": "rain", "steps": 3}', "prompt,steps\nrain,3", "seed,caption,steps\n1,rain,3\n"):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        (row,) = records("-", "--dry-run", quick=())
        assert (row["prompt"], row["steps"]) == ("rain", 3)
    monkeypatch.setattr(sys, "stdin", io.StringIO("prompt;steps\nrain;3"))
    assert records("-", "--dry-run")[0]["prompt"] == "prompt;steps", "only a comma is looked for there"


REFUSED = {
    "empty.txt": (b"\n \n", "no prompt"),
    "bytes.txt": (b"rain\n\x81\n", ":2 is text neither in UTF-8"),
    "column.csv": (b"id,text\n1,rain\n", "column 'id', 'text' is unknown. Known: prompt"),
    "no_prompt.csv": (b"seed,steps\n1,2\n", "have no prompt"),
    "twice.csv": (b"prompt,caption\na,b\n", "one thing twice"),
    "comma.csv": (b"prompt\nrain\na dog, barking\n", "comma.csv:3: 2 cells for 1 columns"),
    "cell.csv": (b"prompt,seed\nrain,1\n,2\n", "cell.csv:3: prompt='' is empty"),
    "nan.csv": (b"prompt\nnan\n", "nan.csv:2: prompt='nan' is empty"),
    "none.jsonl": (b'{"prompt": null}\n', "none.jsonl:1: prompt"),
    "quote.csv": (b'prompt\n"rain\n', "quote.csv:2: a quotation mark is not closed"),
    "broken.jsonl": (b'{"prompt": "rain"}\n{"prompt"\n', "broken.jsonl:2"),
    "field.jsonl": (b'{"text": "rain"}\n', "column 'text' is unknown"),
    "number.jsonl": (b"3\n", "number.jsonl:1"),
    "list.jsonl": (b'{"prompt": ["rain"]}\n', "list.jsonl:1: prompt=['rain'] is no text"),
    "steps.csv": (b"prompt,steps\nrain,many\n", "steps.csv:2: steps='many' cannot be. Write steps=N"),
    "range.csv": (
        b"prompt,steps\nrain,1\nrain,0\nx,-1\n",
        "range.csv:3: steps=0 is out of range. (1 more rows",
    ),
    "nan_seconds.csv": (b"prompt,seconds\nrain,nan\n", "seconds=nan is out of range"),
    "share.csv": (
        b"prompt,audio_prompt\nrain,gone.wav\n",
        "share.csv:2: audio_prompt=gone.wav is not a file",
    ),
    "outside.csv": (b"prompt,out\nrain,../x.wav\n", "leads out of"),
    "absolute.csv": (b"prompt,out\nrain,/x.wav\n", "leads out of"),
    "same.csv": (b"prompt,out\nrain,x\nwind,x.flac\n", "Two clips would be x: 'rain' and 'wind'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_row_is_named_before_the_model_and_in_a_dry_run(refused, tmp_path, name):
    content, expected = REFUSED[name]
    (tmp_path / name).write_bytes(content)
    for dry_run in ((), ("--dry-run",)):
        refused(("--prompts", tmp_path / name, *dry_run), expected)


def test_a_link_does_not_lead_out_of_the_folder(generate, out, tmp_path):
    out.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (out / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "many.csv").write_text("prompt,out\nrain,link/x\n")
    code, _, err = generate("--prompts", tmp_path / "many.csv")
    assert code == 2 and "leads out of" in err


def test_a_dry_run_lists_every_clip_and_makes_none(generate, out, tmp_path):
    (tmp_path / "many.csv").write_text(TABLE)
    code, printed, err = generate("--prompts", tmp_path / "many.csv", "-n", "2", "--dry-run", quick=())
    assert code == 0 and "4 clips would be made" in err
    first, *_, last = printed.splitlines()
    assert first.startswith(f"{out}/dogs/one_seed7.flac  'a dog, barking'  seed=7")
    assert all(part in first for part in ("seconds=0.4", "steps=2", "guidance=1.5", "negative=wind"))
    assert last == f"{out}/rain_seed3.wav  'rain'  seed=3  model={printed.rpartition('model=')[2].strip()}"
    assert not out.exists()


def test_what_is_not_used_is_told(generate):
    code, _, err = generate(" ".join(f"word{i}" for i in range(200)))
    assert code == 0
    assert "words of the prompt are not read" in err and "word199" in err and "word1 " not in err
    code, _, err = generate("雨" * 100, "-n", "3")
    assert code == 0 and err.count("words of the prompt are not read") == 1
    for words in (("--dry-run",), ()):
        code, _, err = generate("rain", "--negative", "wind", "--guidance", "1", *words)
        assert code == 0 and "negative='wind' does nothing at guidance 1" in err
    assert "does nothing" not in generate("rain", "--negative", "wind", "--force")[2]


def test_control_characters_cannot_reach_the_terminal(generate):
    code, printed, err = generate("rain\x1b[2J", "--negative", "\x1b]0;x\x07", "--guidance", "1", "--dry-run")
    assert code == 0 and "\x1b" not in printed + err and r"\x1b" in printed


def test_empty_lines_are_counted_and_named(generate, tmp_path):
    for name, text, told in (
        ("a.txt", "rain\n\n \nwind\n", "2 empty lines are left out: 2, 3."),
        ("a.jsonl", '{"prompt": "rain"}\n\n{"prompt": "wind"}\n', "an empty line is left out: 2."),
        ("a.csv", "prompt,seed\nrain,1\n,\n\nwind,2\n", "2 empty lines are left out: 3, 4."),
    ):
        (tmp_path / name).write_text(text)
        code, printed, err = generate("--prompts", tmp_path / name, "--dry-run")
        assert code == 0 and printed.count("\n") == 2 and f"{tmp_path / name}: {told}" in err, err
    (tmp_path / "a.txt").write_text("rain\nwind\n")
    assert "empty" not in generate("--prompts", tmp_path / "a.txt", "--dry-run")[2]


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC"), ("NFC", "cp1252")])
def test_an_audio_prompt_is_found_however_its_name_is_composed(generate, tmp_path, forms):
    told, stored = forms
    name = unicodedata.normalize("NFC", "café.wav")
    file = os.fsdecode(name.encode("cp1252")) if stored == "cp1252" else unicodedata.normalize(stored, name)
    soundfile.write(os.fsencode(tmp_path / file), np.sin(np.arange(16000) / 9) / 2, 16000, format="WAV")
    cell = tmp_path / unicodedata.normalize(told, name)
    (tmp_path / "p.csv").write_text(f"prompt,audio_prompt\nrain,{cell}\n", encoding="utf-8")
    code, printed, err = generate("--prompts", tmp_path / "p.csv", "--dry-run")
    assert code == 0 and "audio_prompt=" in printed, err
    assert generate("rain", "--audio-prompt", cell, "--dry-run")[0] == 0


def test_prompts_that_never_end_are_refused(generate, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "LONGEST_TEXT", 2**20)
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "endless.txt").symlink_to("/dev/zero")
    (tmp_path / "long.txt").touch()
    os.truncate(tmp_path / "long.txt", 2**40)
    for name, told in (("pipe", "is no file"), ("endless", "is no file"), ("long", "is too long for a text")):
        code, _, err = generate("--prompts", tmp_path / f"{name}.txt", "--dry-run")
        assert code == 2 and told in err
    with (
        open("/dev/zero", "rb", buffering=0) as zeros,
        pytest.raises(AudioLDMError, match="standard input is too"),
    ):
        tables.read_text(zeros, "standard input")
