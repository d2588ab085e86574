"""``--control`` and ``--ip-adapter`` with nets that their recipes train, on the tiny model."""

import json

import pytest
import torch

from audioldm.datasets.decode import encode

QUICK = ("--seconds", "0.64", "--steps", "2", "--set", "figure=false")


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
def controlled(generate, out):
    """Exit code, sidecar, wave and stderr of rain under controls."""

    def execute(*words):
        code, _, err = generate("rain", "--force", *words, quick=QUICK)
        wave = out / f"{'rain_like_ref_seed0' if '--audio-prompt' in words else 'rain_seed0'}.wav"
        return code, json.loads(wave.with_suffix(".json").read_text()) if code == 0 else None, wave, err

    return execute


def test_a_trained_net_of_each_kind_changes_the_sound_and_scale_0_does_not(controlled, nets, sound):
    bytes_of = controlled()[2].read_bytes()
    for kind in ("t2i_adapter", "controlnet"):
        code, sidecar, wave, err = controlled("--control", f"loudness={sound}", *net(nets, kind))
        assert code == 0, err
        assert wave.read_bytes() != bytes_of
        (expected,) = sidecar["settings"]["controls"]
        assert (expected["map"], expected["scale"], expected["from"]) == ("loudness", 1.0, str(sound))
        assert "lasts 1.00 s, the clip 0.64 s: what is after 0.64 s is not used" in err
    assert controlled("--control", f"loudness={sound}:0", *net(nets))[2].read_bytes() == bytes_of


def test_a_sound_is_attended_to_beside_the_words(controlled, nets, sound):
    words = ("--ip-adapter", nets["ip_adapter"])
    code, sidecar, wave, err = controlled("--audio-prompt", f"{sound}:0.6", *words)
    assert code == 0, err
    (expected,) = sidecar["settings"]["controls"]
    assert (expected["sound"], expected["scale"], expected["net"]) == (str(sound), 0.6, "IPAdapter")
    assert "audio_prompt" not in sidecar["settings"], "nothing is mixed into the words"
    attended = wave.read_bytes()
    assert controlled("--audio-prompt", f"{sound}:0", *words)[2].read_bytes() != attended


@pytest.mark.parametrize(("end", "seconds"), [(0.3, 0.64), (1.6, 1.6)])
def test_a_drawn_curve_steers_as_far_as_it_goes(controlled, nets, tmp_path, end, seconds):
    (tmp_path / "curve.csv").write_text(f"0,-50\n{end},-10\n")
    words = ("--control", f"loudness={tmp_path / 'curve.csv'}:0.5", *net(nets), "--seconds", seconds)
    code, sidecar, _, err = controlled(*words)
    assert code == 0 and ("after 0.30 s nothing steers" in err) == (end < seconds)
    assert sidecar["settings"]["controls"][0]["map"] == "loudness"


def test_wrong_use_is_one_clear_line(controlled, nets, sound, tmp_path):
    loud, one = ("--control", f"loudness={sound}"), net(nets)
    for words, expected in [
        (loud, "No net reads loudness for tiny"),
        (("--control", f"tempo={sound}", *one), "Known: loudness, pitch"),
        (
            ("--control", f"pitch={sound}", *one),
            "No net reads pitch for tiny; the control_net named reads loudness",
        ),
        (("--control", "loudness=gone.wav", *one), "gone.wav is not a file"),
        (one, "has no map to read"),
        (("--ip-adapter", nets["t2i_adapter"]), "no sound to attend to"),
        (("--audio-prompt", sound, "--ip-adapter", nets["t2i_adapter"]), "holds a T2IAdapter"),
        (("--audio-prompt", sound, "--ip-adapter", "own"), "has no net of its own for --ip-adapter"),
        ((*loud, "--set", f"control_net={tmp_path / 'no'}"), "is not there"),
        ((*loud, *one, *net(nets, "controlnet")), "Two control_nets read loudness"),
    ]:
        code, _, _, err = controlled(*words)
        assert code == 2 and expected in err, (words, err)


def net(nets, kind="t2i_adapter"):
    return ("--set", f"control_net={nets[kind]}")


def test_a_net_is_refused_where_it_does_not_belong(command, nets, tiny_model, sound, tmp_path, capsys):
    data = f"data.folder={nets['t2i_adapter'].parents[2] / 'latents'}"
    words = ["train", "control/t2i_adapter", data, f"task.model={tiny_model}", f"run_dir={tmp_path / 'run'}"]
    assert command(*words, "task.map=pitch", "batches=1") == 2
    assert "task.map=pitch, and the data carries loudness" in capsys.readouterr().err
    assert command("generate", "rain", "--control", f"loudness={sound}", *net(nets)) == 2
    assert "was trained for another U-Net than embedded" in capsys.readouterr().err
    assert command("edit", "transfer", sound, "rain", "--control", f"loudness={sound}") == 2
    assert "No such option '--control'" in capsys.readouterr().err
