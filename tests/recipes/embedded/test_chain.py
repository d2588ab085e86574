"""From trained nets to a model folder with its extras and card, at tiny sizes; and the order of `make embedded`."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from audioldm.adapters.files import read
from audioldm.control.controls import load_net, shipped
from audioldm.errors import AudioLDMError
from audioldm.nets.folder import weight_file
from audioldm.nets.unet import build_unet
from audioldm.paths import sha256
from audioldm.pipeline.audioldm import AudioLDM
from recipes.embedded import extras
from recipes.embedded.captions import kind
from recipes.embedded.extras import EXTRAS, chances, score
from recipes.embedded.model_lease import save_unet

ROOT = Path(__file__).parents[3]


def run(module: str, *words: object) -> None:
    subprocess.run(
        [sys.executable, "-m", f"recipes.embedded.{module}", *map(str, words)], check=True, cwd=ROOT
    )


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> Path:
    """Six tones that swell, in a part and held out, and again as the ten clips of an adapter."""
    folder, rng = tmp_path_factory.mktemp("parts"), np.random.default_rng(0)
    for name in ("part0", "valid", "heard"):
        (folder / name).mkdir()
        rows = []
        for number in range(6):
            time = np.arange(48000) / 16000
            swell = np.where((time * 2 + number / 6) % 1 < 0.4, 0.5, 0.01)
            wave = swell * np.sin(2 * np.pi * (200 + 40 * number) * time) + 1e-3 * rng.standard_normal(48000)
            soundfile.write(folder / name / f"{number}.ogg", wave, 16000)
            texts = [f"a tone of {number}", "a tone"]
            rows.append(
                {
                    "path": f"{number}.ogg",
                    "weight": 1.0,
                    "kind": kind(texts[0]),
                    "texts": texts,
                    "repeats": False,
                }
            )
        if name != "heard":
            (folder / name / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
            (folder / name / "done").touch()
    return folder


@pytest.mark.slow
def test_nets_become_a_model_with_extras_and_a_card(parts: Path, tmp_path: Path):
    torch.manual_seed(0)
    net = build_unet(
        "film", channels=(16, 32, 32), latent_channels=16, layers=1, film_dim=256, groups=8, sample_size=64
    )
    save_unet(net, tmp_path / "unet", piece=200_000)
    assert len(list((tmp_path / "unet").glob("*.safetensors"))) > 1
    model = tmp_path / "model"
    run("assemble", "model", "--unet", tmp_path / "unet", "--name", "tiny", "--guidance", 3, "-o", model)
    run("extras", "--model", model, "--parts", parts, "--shield", parts / "heard", "--out", model,
        "--windows", 8, "--workers", 1, "--threads", 1, "--steps", 2, "--checked", 2)  # fmt: skip
    base = sha256(weight_file(model / "unet"))
    for name in EXTRAS.keys() - {"shield"}:
        assert shipped(name, base, folder=model / "control") and load_net(model / "control" / name)
    pipe = AudioLDM.from_pretrained(model)
    assert pipe.name == "tiny" and pipe.defaults.guidance == 3 and "latents" not in pipe.about
    adapter = read(model / "adapters" / "shield.safetensors", pipe.unet)
    assert adapter.base == {"unet": base} and {
        v.dtype for x in adapter.layers.values() for v in x.factors.values()
    } == {torch.float16}
    (tmp_path / "checks.md").write_text("| bar | value |")
    run("assemble", "card", "-o", model, "--parts", parts, "--checks", tmp_path / "checks.md")
    text = (model / "README.md").read_text()
    assert (
        "6 clips, 6 kinds" in text
        and "| loudness |" in text
        and "| bar | value |" in text
        and "# tiny" in text
    )


def test_what_is_followed_scores_best():
    wanted = {"loudness": torch.linspace(-50, -10, 200), "pitch": torch.linspace(200, 300, 200)}
    wanted["onset"] = torch.zeros(200).index_fill(0, torch.tensor([20, 90]), 1.0)
    wanted["edges"] = (torch.rand(200, 64, generator=torch.Generator().manual_seed(0)) > 0.8).float()
    for name, curve in wanted.items():
        same, other = score(name, curve, curve), score(name, curve, curve.roll(37, 0))
        assert same == pytest.approx(0 if name == "loudness" else 1, abs=1e-4)
        assert (other > same + 1) if name == "loudness" else (other < 0.2)
    # a constant difference of level is no error
    assert score("loudness", wanted["loudness"], wanted["loudness"] - 6) == pytest.approx(0, abs=1e-4)
    near = torch.zeros(200).index_fill(0, torch.tensor([23, 93]), 0.4)
    assert score("onset", wanted["onset"], near) == 1


def test_windows_with_a_pitch_are_drawn_as_often_as_asked():
    pitch = torch.zeros(100, 8)
    pitch[:10] = 220.0
    chance = chances(pitch, 0.7).diff(prepend=torch.zeros(1))
    assert chance[:10].sum() == pytest.approx(0.7) and chances(pitch, None)[9] == pytest.approx(0.1)


def test_shields_are_looked_for_where_they_are_listed(tmp_path: Path):
    (tmp_path / "m.jsonl").write_text("")
    with pytest.raises(AudioLDMError, match="has no 'a blow landing"):
        extras.ten_clips(tmp_path / "m.jsonl")


def test_make_embedded_goes_through_every_step_and_no_whole_one_again(tmp_path: Path):
    manifests = [f"data/raw/{name}.jsonl" for name in ("esc10", "opensounds2", "opensounds", "rendered")]
    there = [word for name in (".venv/dev.stamp", *manifests) for word in ("-o", name)]
    words = ["make", "-n", "-C", ROOT, f"RUN={tmp_path}/run", f"PARTS={tmp_path}/parts", *there, "embedded"]

    def plan() -> str:
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout

    steps = {
        "model_parts": "parts/words.txt", "model_lease vae": "run/vae/finished",
        "vocoder_lease": "run/vocoder/finished",
        "model_lease clap": "run/clap/finished", "model_lease unet": "run/unet/finished",
        "assemble model": "run/model/audioldm.json", "extras --model": "run/model/checks/shield.json",
        "release_checks": "run/checks/checks.md",
    }  # fmt: skip
    for left, (step, file) in enumerate(steps.items()):
        text = plan()
        assert [name in text for name in steps] == [number >= left for number in range(len(steps))], step
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    assert "attribution" in plan() and "assemble card" in plan()
