"""``--like``, ``--towards`` and ``--rerank``: what they leave, refuse, and never mix."""

import hashlib
import json

import numpy as np
import pytest
import soundfile
import torch

QUICK = ("--seconds", "0.2", "--steps", "2", "--set", "figure=false")


@pytest.fixture
def generate(command, tiny_model, tmp_path, capsys):
    """Run generate with the tiny model; returns (exit code, the sidecars in the order of --json, stderr)."""

    def execute(*words, model=tiny_model):
        code = command("generate", *words, "-m", model, "-o", tmp_path / "out", "--json", *QUICK)
        printed, err = capsys.readouterr()
        return code, json.loads(printed) if code == 0 else None, err

    return execute


@pytest.fixture
def sound(tmp_path):
    path = tmp_path / "My dog.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(22050), 44100)
    return path


def wave(row):
    return soundfile.read(row["audio"], dtype="int16")[0]


def test_rerank_keeps_the_best_of_its_own_prompt(generate, tmp_path):
    code, rows, err = generate(
        "--prompts", prompts(tmp_path, "rain", "church bells"), "-n", "2", "--set", "rerank=3"
    )
    assert code == 0, err
    assert [row["prompt"] for row in rows] == ["rain", "rain", "church bells", "church bells"]
    for place, row in enumerate(rows):
        ranks = row["settings"]["rerank"]
        assert [one["seed"] for one in ranks["candidates"]] == [3 * place + i for i in range(3)]
        scores = {one["seed"]: one["clap"] for one in ranks["candidates"]}
        assert row["seed"] == ranks["kept"] == max(scores, key=scores.get)
        assert row["audio"].endswith(f"_seed{row['seed']}.wav")
    assert len(list((tmp_path / "out").glob("*.wav"))) == 4, "losers leave nothing"


def prompts(folder, *texts):
    path = folder / "prompts.txt"
    path.write_text("\n".join(texts), encoding="utf-8")
    return path


def test_the_winner_is_the_same_bytes_as_its_seed_alone(generate):
    _, (row,), _ = generate("rain", "--set", "rerank=3", "--seed", "5")
    winner = wave(row)
    _, (alone,), _ = generate("rain", "--seed", row["seed"], "--force")
    assert np.array_equal(winner, wave(alone))
    assert "rerank" not in alone["settings"]


def test_scores_are_those_of_the_pipeline(generate, tiny_model):
    from audioldm.pipeline.audioldm import AudioLDM
    from audioldm.pipeline.conditions import clap_scores

    _, (row,), _ = generate("rain", "--set", "rerank=2")
    pipe = AudioLDM.from_pretrained(tiny_model)
    waves = pipe(["rain"] * 2, seeds=[0, 1], seconds=0.2, steps=2)
    scores = clap_scores(pipe, waves, pipe.clap.embed_text(["rain"]))
    expected = torch.tensor([one["clap"] for one in row["settings"]["rerank"]["candidates"]])
    torch.testing.assert_close(expected, scores)


def test_towards_keeps_the_seed_and_goes_from_one_prompt_to_the_other(generate):
    code, rows, err = generate("rain", "--interpolate-to", "church bells:0,0.5,1", "--seed", "4")
    assert code == 0, err
    names = [f"rain_to_church_bells_{share}_seed4.wav" for share in ("0", "0.5", "1")]
    assert [row["audio"].rsplit("/", 1)[1] for row in rows] == names
    expected = [{"prompt": "church bells", "share": share} for share in (0.0, 0.5, 1.0)]
    assert [row["settings"]["interpolate_to"] for row in rows] == expected
    first, middle, last = map(wave, rows)
    assert np.array_equal(first, wave(generate("rain", "--seed", "4")[1][0]))
    other = wave(generate("church bells", "--seed", "4")[1][0])
    # at share 1 the vector is the other prompt's but for float32 rounding
    assert np.abs(last.astype(int) - other).max() <= 2
    assert not np.array_equal(middle, first)
    assert not np.array_equal(middle, last)


def test_like_alone_and_with_a_prompt(generate, sound):
    code, (alone,), err = generate("--audio-prompt", sound)
    assert code == 0, err
    assert alone["audio"].endswith("/audio_prompt_my_dog_seed0.wav")
    digest = hashlib.sha256(sound.read_bytes()).hexdigest()
    assert alone["settings"]["audio_prompt"] == {"file": str(sound), "sha256": digest, "share": 1.0}
    assert alone["prompt"] == ""
    code, (mixed,), err = generate("rain", "--audio-prompt", f"{sound}:0.6")
    assert code == 0, err
    assert mixed["settings"]["audio_prompt"]["share"] == 0.6
    assert mixed["audio"].endswith("/rain_like_my_dog_seed0.wav")
    plain = generate("rain")[1][0]
    sounds = [wave(row) for row in (alone, mixed, plain)]
    assert not np.array_equal(sounds[0], sounds[1])
    assert not np.array_equal(sounds[1], sounds[2])
    _, (none,), _ = generate("rain", "--audio-prompt", f"{sound}:0", "--force")
    assert np.array_equal(wave(none), wave(plain)), "a share of 0 is the prompt"


def test_like_follows_the_embedding_of_the_sound(generate, sound, tiny_model):
    from audioldm.datasets.decode import decode
    from audioldm.pipeline.audioldm import AudioLDM
    from audioldm.pipeline.conditions import between, clap_of

    _, (row,), _ = generate("--audio-prompt", sound, "--set", "rerank=2")
    pipe = AudioLDM.from_pretrained(tiny_model)
    expected = between(pipe, pipe.encode_text([""]), clap_of(pipe, decode(sound, 16000)[None]), 1.0)
    result = pipe([expected], seeds=[row["seed"]], seconds=0.2, steps=2)[0].numpy()
    assert np.array_equal(np.rint(result.clip(-1, 1) * 32767).astype(np.int16), wave(row))


REFUSED = {
    "no candidates": (("rain", "--set", "rerank=0"), "rerank=0"),
    "no such file": (("rain", "--audio-prompt", "no/such.wav"), "audio-prompt=no/such.wav is not a file"),
    "share above one": (("rain", "--audio-prompt", "a.wav:1.5"), "0 to 1"),
    "share nan": (("rain", "--interpolate-to", "b:nan"), "0 to 1"),
    "nothing to go to": (("rain", "--interpolate-to", ":0.5"), "is empty"),
}


@pytest.mark.parametrize(("words", "expected"), REFUSED.values(), ids=REFUSED)
def test_what_no_run_could_use_is_refused_before_the_model(generate, words, expected):
    code, _, err = generate(*words, model="no/such/model")
    assert code == 2
    assert expected in err
    assert err.count("\n") == 1


def test_a_prompt_is_needed_where_a_share_is_left_for_it(generate, sound):
    for words, expected in (
        (("--audio-prompt", f"{sound}:0.6"), "leaves 0.4 to a prompt"),
        (("--audio-prompt", sound, "--interpolate-to", "wind"), "no prompt to come from"),
        (("rain", "--audio-prompt", f"{sound}:0.2,0.4"), "has 2 shares"),
        (("--set", "schedule=0-1 rain; 1-2 wind", "--set", "rerank=2"), "schedule does not go with"),
    ):
        code, _, err = generate(*words, model="no/such/model")
        assert code == 2
        assert expected in err


@pytest.mark.parametrize(
    ("content", "expected"), [(b"not a sound", "Cannot read audio"), (None, "is silent")]
)
def test_a_sound_that_says_nothing_is_refused(generate, tmp_path, content, expected):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(16000), 16000) if content is None else path.write_bytes(content)
    code, _, err = generate("--audio-prompt", path)
    assert code == 2
    assert expected in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()
