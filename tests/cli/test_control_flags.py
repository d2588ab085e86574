"""``--control`` and ``--ip-adapter`` with nets that their recipes train, on the tiny model."""

import json

import pytest
import torch

from audioldm.datasets.decode import encode

QUICK = ("--seconds", "0.64", "--steps", "2", "--set", "figure=false", "--force")


@pytest.fixture(scope="module")
def nets(tiny_model, tmp_path_factory):
    """Folders of a loudness adapter, a ControlNet and an audio prompt, each a few batches of its recipe old."""
    from audioldm.cli.app import run

    folder = tmp_path_factory.mktemp("control")
    parts = ["--vae", str(tiny_model / "vae"), "--clap", str(tiny_model), "--maps", "loudness"]
    with pytest.MonkeyPatch.context() as few:
        few.setattr("audioldm.training.encoding.ROUNDS", 4)
        words = ["data", "encode", "synthetic", "-o", str(folder / "latents"), "--seconds", "0.64"]
        assert run([*words, *parts]) == 0
    data = [f"data.folder={folder / 'latents'}", "batches=4", "val_every=4", "batch_size=4", "task.lr=1e-2"]
    matches = {}
    for kind in ("t2i_adapter", "controlnet", "ip_adapter"):
        words = [*data, f"task.model={tiny_model}", "task.warmup=1", f"run_dir={folder / kind}"]
        assert run(["train", f"control/{kind}", *words]) == 0
        matches[kind] = folder / kind / "model" / "control"
    return matches


@pytest.fixture
def sound(tmp_path):
    path = tmp_path / "ref.wav"
    time = torch.arange(16000) / 16000
    encode(path, torch.sin(2 * torch.pi * 330 * time) * time.clamp(max=0.5), 16000)
    return path


@pytest.fixture
def generate(command, tiny_model, tmp_path, capsys):
    def execute(*words):
        code = command("generate", "rain", "-m", tiny_model, "-o", tmp_path / "out", *QUICK, *words)
        err = capsys.readouterr().err
        name = "rain_like_ref_seed0" if "--audio-prompt" in words else "rain_seed0"
        wave = tmp_path / "out" / f"{name}.wav"
        return code, json.loads(wave.with_suffix(".json").read_text()) if code == 0 else None, wave, err

    return execute


def test_a_trained_net_of_each_kind_changes_the_sound_and_scale_0_does_not(generate, nets, sound):
    _, _, plain, _ = generate()
    bytes_of = plain.read_bytes()
    for kind in ("t2i_adapter", "controlnet"):
        code, sidecar, wave, err = generate(
            "--control", f"loudness={sound}", "--set", f"control_net={nets[kind]}"
        )
        assert code == 0, err
        assert wave.read_bytes() != bytes_of
        (expected,) = sidecar["settings"]["controls"]
        assert (expected["map"], expected["scale"], expected["from"]) == ("loudness", 1.0, str(sound))
        assert "lasts 1.00 s, the clip 0.64 s: what is after 0.64 s is not used" in err
    _, _, wave, _ = generate(
        "--control", f"loudness={sound}:0", "--set", f"control_net={nets['t2i_adapter']}"
    )
    assert wave.read_bytes() == bytes_of


def test_a_sound_is_attended_to_beside_the_words(generate, nets, sound):
    code, sidecar, wave, err = generate("--audio-prompt", f"{sound}:0.6", "--ip-adapter", nets["ip_adapter"])
    assert code == 0, err
    (expected,) = sidecar["settings"]["controls"]
    assert (expected["sound"], expected["scale"], expected["net"]) == (str(sound), 0.6, "IPAdapter")
    assert "audio_prompt" not in sidecar["settings"], "nothing is mixed into the words"
    attended = wave.read_bytes()
    _, _, wave, _ = generate("--audio-prompt", f"{sound}:0", "--ip-adapter", nets["ip_adapter"])
    assert wave.read_bytes() != attended


def test_a_model_without_an_audio_prompt_says_so(generate, sound):
    code, _, _, err = generate("--audio-prompt", f"{sound}:0.6", "--ip-adapter", "own")
    assert code != 0 and "has no net of its own for --ip-adapter" in err


def test_a_drawn_curve_steers_as_far_as_it_goes(generate, nets, tmp_path):
    (tmp_path / "curve.csv").write_text("0,-50\n0.3,-10\n")
    words = (
        "--control",
        f"loudness={tmp_path / 'curve.csv'}:0.5",
        "--set",
        f"control_net={nets['t2i_adapter']}",
    )
    code, _, _, err = generate(*words)
    assert code == 0 and "after 0.30 s nothing steers" in err


def test_a_long_clip_follows_a_long_curve(generate, nets, tmp_path):
    (tmp_path / "curve.csv").write_text("0,-50\n3.2,-10\n")
    words = ("--control", f"loudness={tmp_path / 'curve.csv'}", "--set", f"control_net={nets['t2i_adapter']}")
    code, sidecar, _, err = generate(*words, "--seconds", "3.2")
    assert code == 0 and "control loudness" not in err, err
    assert sidecar["settings"]["controls"][0]["map"] == "loudness"


def test_an_edit_takes_no_control_and_says_so(command, sound, capsys):
    assert command("edit", "transfer", sound, "rain", "--control", f"loudness={sound}") == 2
    assert "No such option: --control" in capsys.readouterr().err


def test_wrong_use_is_one_clear_line(generate, nets, sound, tmp_path):
    net = nets["t2i_adapter"]
    for words, expected in [
        (("--control", f"loudness={sound}"), "No net reads loudness for tiny"),
        (("--control", f"tempo={sound}", "--set", f"control_net={net}"), "Known: loudness, pitch"),
        (
            ("--control", f"pitch={sound}", "--set", f"control_net={net}"),
            "No net reads pitch for tiny; the control_net named reads loudness",
        ),
        (("--control", "loudness=gone.wav", "--set", f"control_net={net}"), "gone.wav is not a file"),
        (("--set", f"control_net={net}"), "has no map to read"),
        (("--ip-adapter", net), "no sound to attend to"),
        (("--audio-prompt", sound, "--ip-adapter", net), "holds a T2IAdapter"),
        (("--control", f"loudness={sound}", "--set", f"control_net={tmp_path / 'no'}"), "is not there"),
        (
            (
                "--control",
                f"loudness={sound}",
                "--set",
                f"control_net={net}",
                "--set",
                f"control_net={nets['controlnet']}",
            ),
            "Two control_nets read loudness",
        ),
    ]:
        code, _, _, err = generate(*words)
        assert code == 2 and expected in err, (words, err)


def test_a_curve_is_not_drawn_as_another_map(command, nets, tiny_model, tmp_path, capsys):
    data = f"data.folder={nets['t2i_adapter'].parents[2] / 'latents'}"
    words = ["train", "control/t2i_adapter", data, f"task.model={tiny_model}", f"run_dir={tmp_path / 'run'}"]
    assert command(*words, "task.map=pitch", "batches=1") == 2
    assert "task.map=pitch, and the data carries loudness" in capsys.readouterr().err


def test_a_net_of_another_model_is_refused(command, nets, sound, capsys):
    words = ("--control", f"loudness={sound}", "--set", f"control_net={nets['t2i_adapter']}")
    assert command("generate", "rain", *words) == 2
    assert "was trained for another U-Net than embedded" in capsys.readouterr().err
