"""What is promised of the doors and no room's own tests hold."""

import json

import numpy as np
import pytest
import soundfile

from audioldm.datasets.manifest import read

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
