"""Windows to latents: the same by processes and here, in any batch, with texts of several lengths."""

from dataclasses import replace

import pytest
import torch

from audioldm.convert.reference import open_part
from audioldm.datasets.audio_text import AudioText
from audioldm.datasets.decode import encode
from audioldm.datasets.latents import Encoded
from audioldm.datasets.manifest import Row
from audioldm.datasets.synthetic import Synthetic
from audioldm.nets.vae import stride_of
from audioldm.progress import listening
from audioldm.spec import SPECS
from audioldm.training.encoding import Cuts, Nets, Source, Windows, encoded, jobs, text_encoder

SPEC = SPECS["16k_64"]


@pytest.fixture
def rows(tmp_path) -> list[Row]:
    sounds = Synthetic(SPEC, 1.0, 6, seed=0)
    return [
        Row(str(encode(tmp_path / f"{i}.flac", sounds[i][0][0], 16000)), (f"sound {i}", f"a {i}"), source="s")
        for i in range(6)
    ]


@pytest.fixture
def nets(tiny_model) -> Nets:
    vae, clap = open_part(tiny_model, "vae"), open_part(tiny_model, "clap")
    front = replace(SPEC, stride=stride_of(vae), latent_channels=vae.config.latent_channels)
    return Nets(vae, clap, front, text_encoder(clap))


def windows(rows: list[Row], nets: Nets, size: int, cuts: Cuts) -> Windows:
    sources = [Source.of(rows, nets.spec, cuts)]
    return Windows(sources, jobs(sources, [2]), nets.spec, cuts, batch_size=size)


def close(one: list[Encoded], two: list[Encoded], exact: bool) -> bool:
    kinds = ("mean", "std", "audio", "text")
    same = torch.equal if exact else lambda a, b: torch.allclose(a, b, atol=1e-4, rtol=1e-4)
    pairs = zip(one, two, strict=True)
    return all(same(getattr(a, kind), getattr(b, kind)) for a, b in pairs for kind in kinds)


def test_processes_and_batches_change_nothing(rows, nets):
    cuts, steps = Cuts(0.64, speed=0.05, seed=3), []
    with listening(lambda unit, done, total: steps.append((unit, done, total))):
        alone = list(encoded(windows(rows, nets, 1, cuts), nets))
    assert len(alone) == 12 and steps[-1] == ("windows", 12, 12) and alone[0].source == "s"
    assert alone[2].text.shape == (2, nets.clap.dim), "both captions of the second clip"
    assert not torch.equal(alone[0].mean, alone[1].mean), "two draws of one clip"
    assert close(alone, list(encoded(windows(rows, nets, 1, cuts), nets, workers=2)), exact=True)
    assert close(alone, list(encoded(windows(rows, nets, 5, cuts), nets, workers=1)), exact=False)


def test_clips_are_decoded_once_for_all_windows_of_them(rows, nets, monkeypatch):
    from audioldm.datasets import audio_text

    read, real = [], audio_text.load
    monkeypatch.setattr(audio_text, "load", lambda row, rate: (read.append(row.path), real(row, rate))[1])
    batches = windows(rows, nets, 4, Cuts(0.64))
    assert read == [], "nothing is decoded before the first batch is asked for"
    assert sum(len(batches[i][0]) for i in range(len(batches))) == 12 and len(read) == 6
    assert isinstance(batches.sources[0].data, AudioText)


def test_a_clip_without_caption_has_its_sound(rows, nets):
    silent = [replace(row, captions=("",)) for row in rows[:1]]
    for window in encoded(windows(silent, nets, 1, Cuts(0.64)), nets):
        assert torch.equal(window.text[0], window.audio)
    nets.hears = False
    for window in encoded(windows(rows[:1], nets, 1, Cuts(0.64)), nets):
        assert torch.equal(window.text[0], window.audio), "a model that cannot hear has the caption's"
