"""Samplers, guidance, audio prompts, ways between prompts, candidates: from the command line to sound and sidecar."""

import hashlib
import json

import numpy as np
import pytest
import soundfile
import torch

from audioldm.datasets.decode import decode
from audioldm.diffusion.grids import GRIDS
from audioldm.diffusion.guidance import GUIDANCE
from audioldm.diffusion.samplers import SAMPLERS
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.pipeline.conditions import between, clap_of, clap_scores
from audioldm.pipeline.guidance import METHODS


def wave(row):
    return soundfile.read(row["audio"], dtype="int16")[0]


@pytest.mark.parametrize(
    ("words", "written"),
    [
        ("--sampler vp_sde:rounds=2,size=0.1", {"sampler": "vp_sde:rounds=2,size=0.1"}),
        ("--set grid=karras:rho=5 --negative wind", {"grid": "karras:rho=5", "negative": "wind"}),
        ("--set guidance_method=rescale:phi=0.5", {"guidance_method": "rescale:phi=0.5"}),
        ("--set guidance_method=cfg_plus_plus --guidance 0.6 --sampler euler", {"guidance": 0.6}),
        ("--set guidance_interval=0.3,5", {"guidance_interval": [0.3, 5.0]}),
        ("--set guidance_threshold=0.995,3", {"guidance_threshold": [0.995, 3.0]}),
        (
            "--set guidance_extra_prompts=birds:0.5 --set guidance_extra_prompts=noise:-1",
            {"guidance_extra_prompts": [["birds", 0.5], ["noise", -1.0]]},
        ),
        ("--set guidance_clap=30", {"guidance_clap": 30.0}),
    ],
)
def test_a_flag_reaches_the_sidecar(records, words, written):
    (row,) = records("rain", *words.split())
    assert written.items() <= row["settings"].items()


def test_a_weak_model_is_named(records, tiny_model):
    (row,) = records("rain", "--set", f"guidance_weak={tiny_model}")
    assert row["settings"]["guidance_weak"]["name"] == "tiny"


def test_samplers_lists_each_with_a_line_and_its_paper(command, capsys):
    assert command("samplers") == 0
    lines = capsys.readouterr().out.splitlines()
    for table in (SAMPLERS, GRIDS, METHODS):
        for name, entry in table.items():
            (line,) = [line for line in lines if line.startswith(f"  {name} ")]
            assert entry.line in line and entry.paper in line
    shown = "\n".join(lines)
    assert all(entry.line in shown for entry in GUIDANCE.values())
    assert command("samplers", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["samplers"]["ddim"]["options"] == {"eta": 0.0}
    assert report["samplers"]["heun"]["calls_per_step"] == "2"


def test_rerank_keeps_the_best_of_its_own_prompt(records, tmp_path, out, tiny_model):
    (tmp_path / "prompts.txt").write_text("rain\nchurch bells", encoding="utf-8")
    rows = records("--prompts", tmp_path / "prompts.txt", "-n", "2", "--set", "rerank=3")
    assert [row["prompt"] for row in rows] == ["rain", "rain", "church bells", "church bells"]
    for place, row in enumerate(rows):
        ranks = row["settings"]["rerank"]
        assert [one["seed"] for one in ranks["candidates"]] == [3 * place + i for i in range(3)]
        scores = {one["seed"]: one["clap"] for one in ranks["candidates"]}
        assert row["seed"] == ranks["kept"] == max(scores, key=scores.get)
        assert row["audio"].endswith(f"_seed{row['seed']}.wav")
    assert len(list(out.glob("*.wav"))) == 4, "losers leave nothing"
    pipe = AudioLDM.from_pretrained(tiny_model)
    waves = pipe(["rain"] * 3, seeds=[0, 1, 2], seconds=0.2, steps=2)
    expected = torch.tensor([one["clap"] for one in rows[0]["settings"]["rerank"]["candidates"]])
    torch.testing.assert_close(expected, clap_scores(pipe, waves, pipe.clap.embed_text(["rain"])))
    winner = wave(rows[0])
    (alone,) = records("rain", "--seed", rows[0]["seed"], "--force")
    assert np.array_equal(winner, wave(alone)) and "rerank" not in alone["settings"]


def test_an_interpolation_keeps_the_seed_and_goes_from_one_prompt_to_the_other(records):
    rows = records("rain", "--interpolate-to", "church bells:0,0.5,1", "--seed", "4")
    names = [f"rain_to_church_bells_{share}_seed4.wav" for share in ("0", "0.5", "1")]
    assert [row["audio"].rsplit("/", 1)[1] for row in rows] == names
    expected = [{"prompt": "church bells", "share": share} for share in (0.0, 0.5, 1.0)]
    assert [row["settings"]["interpolate_to"] for row in rows] == expected
    first, middle, last = map(wave, rows)
    assert np.array_equal(first, wave(records("rain", "--seed", "4")[0]))
    other = wave(records("church bells", "--seed", "4")[0])
    # at share 1 the vector is the other prompt's but for float32 rounding
    assert np.abs(last.astype(int) - other).max() <= 2
    assert not np.array_equal(middle, first) and not np.array_equal(middle, last)


def test_an_audio_prompt_alone_and_with_words(records, sound, tiny_model):
    (alone,) = records("--audio-prompt", sound)
    assert alone["audio"].endswith("/audio_prompt_my_dog_seed0.wav") and alone["prompt"] == ""
    digest = hashlib.sha256(sound.read_bytes()).hexdigest()
    assert alone["settings"]["audio_prompt"] == {"file": str(sound), "sha256": digest, "share": 1.0}
    (mixed,) = records("rain", "--audio-prompt", f"{sound}:0.6")
    assert mixed["settings"]["audio_prompt"]["share"] == 0.6
    assert mixed["audio"].endswith("/rain_like_my_dog_seed0.wav")
    plain, with_words = wave(records("rain")[0]), wave(mixed)
    assert not np.array_equal(wave(alone), with_words) and not np.array_equal(with_words, plain)
    (none,) = records("rain", "--audio-prompt", f"{sound}:0", "--force")
    assert np.array_equal(wave(none), plain), "a share of 0 is the prompt"
    pipe = AudioLDM.from_pretrained(tiny_model)
    expected = between(pipe, pipe.encode_text([""]), clap_of(pipe, decode(sound, 16000)[None]), 1.0)
    result = pipe([expected], seeds=[0], seconds=0.2, steps=2)[0].numpy()
    assert np.array_equal(np.rint(result.clip(-1, 1) * 32767).astype(np.int16), wave(alone))
