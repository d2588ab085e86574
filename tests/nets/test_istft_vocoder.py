"""The vocoder that ends in an inverse STFT."""

import json
import math
from pathlib import Path

import pytest
import torch

from audioldm.errors import AudioLDMError
from audioldm.nets.folder import load_component, save_component
from audioldm.nets.hifigan import vocode
from audioldm.nets.istft_vocoder import ISTFTVocoder
from audioldm.signal.mel import LogMel
from audioldm.spec import AudioSpec

SMALL = {"width": 32, "hidden": 64, "depth": 2, "noise": 8}


def small() -> ISTFTVocoder:
    torch.manual_seed(0)
    return ISTFTVocoder(**SMALL).eval()


def mels(frames: int, rows: int = 2) -> torch.Tensor:
    return torch.randn(rows, 1, frames, 64, generator=torch.Generator().manual_seed(frames)) * 2 - 5


@pytest.mark.parametrize("frames", [1, 7, 64, 130])
@torch.no_grad()
def test_one_hop_a_frame_exactly(frames: int):
    wave = vocode(small(), mels(frames))
    assert wave.shape == (2, 1, frames * 160) and bool(wave.isfinite().all())


@torch.no_grad()
def test_a_row_is_the_same_alone_and_in_a_batch():
    vocoder, mel = small(), mels(60, rows=3)
    assert torch.allclose(vocode(vocoder, mel)[1:2], vocode(vocoder, mel[1:2]), atol=1e-6)


@torch.no_grad()
def test_what_it_begins_with_is_a_pure_tone_at_its_frequency_and_level():
    vocoder = small()
    vocoder.head.weight.zero_()
    vocoder.head.bias[:513] = 20.0  # tones alone
    time = torch.arange(32000) / 16000
    wave = (0.1 * torch.sin(2 * math.pi * 1234.5 * time))[None, None]
    output = vocode(vocoder, LogMel(AudioSpec())(wave))[0, 0]
    middle = output[8000 : 8000 + 16384]
    spectrum = torch.fft.rfft(middle * torch.hann_window(16384)).abs().square()
    peak = int(spectrum.argmax())
    assert abs(peak * 16000 / 16384 - 1234.5) < 2
    assert spectrum[peak - 3 : peak + 4].sum() / spectrum.sum() > 0.99
    assert abs(20 * math.log10(float(middle.std() / wave.std()))) < 0.5


@torch.no_grad()
def test_silence_is_silent_also_beside_a_sound():
    mel = torch.full((1, 1, 50, 64), math.log(1e-5))
    assert float(vocode(small(), mel).abs().max()) == 0
    mel[:, :, :20] = 0.0
    wave = vocode(small(), mel)[0, 0]
    assert float(wave[: 20 * 160].abs().max()) > 0.01 and float(wave[30 * 160 :].abs().max()) == 0


@torch.no_grad()
def test_a_correction_brings_the_sound_to_its_mel_and_none_leaves_it():
    vocoder, mel_of = small(), LogMel(AudioSpec())
    mel = mel_of(0.1 * torch.randn(1, 1, 16000, generator=torch.Generator().manual_seed(0)))
    far = []
    for rounds in (0, 1, 4):
        vocoder.register_to_config(corrections=rounds)
        far.append(float((mel_of(vocode(vocoder, mel)) - mel).abs().mean()))
    assert far[1] < 0.6 * far[0] and far[2] < 0.8 * far[1]


def test_a_gradient_reaches_every_weight_and_the_mel():
    vocoder = small().train()
    mel = mels(30).requires_grad_()
    vocode(vocoder, mel).square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in vocoder.parameters())
    assert float(mel.grad.abs().sum()) > 0


@torch.no_grad()
def test_seeds_vary_the_noise_and_nothing_else_does():
    vocoder, mel = small(), mels(40)[:, 0]
    same = vocoder(mel)
    assert torch.equal(same, vocoder(mel))
    rows = vocoder(mel[:1].expand(2, -1, -1), torch.tensor([1, 2]))
    assert not torch.allclose(rows[0], rows[1], atol=1e-4)


@torch.no_grad()
def test_it_comes_back_from_a_folder_and_a_wrong_config_is_refused(tmp_path: Path):
    vocoder, mel = small(), mels(40)
    save_component(vocoder, tmp_path)
    assert torch.equal(vocode(load_component(tmp_path), mel), vocode(vocoder, mel))
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["_class_name"] == "ISTFTVocoder" and config["width"] == 32
    (tmp_path / "config.json").write_text(json.dumps(config | {"width": 48}))
    with pytest.raises(AudioLDMError, match="shape"):
        load_component(tmp_path)


@torch.no_grad()
def test_in_bfloat16_it_is_near_itself():
    vocoder, mel = small(), mels(60)
    exact = vocode(vocoder, mel)
    near = vocode(vocoder.bfloat16(), mel.bfloat16())
    assert near.dtype == torch.bfloat16 and near.shape == exact.shape
    mel_of = LogMel(AudioSpec())
    assert (mel_of(near.float()) - mel_of(exact)).abs().mean() < 0.3


@torch.no_grad()
@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_engines_run_it_as_it_is_or_near_it(mode: str):
    from audioldm.engines import build_functions
    from audioldm.nets.clap import NoClap
    from audioldm.nets.unet import build_unet
    from audioldm.nets.vae import build_vae

    kind = torch.float32 if mode == "exact" else torch.bfloat16
    unet = build_unet(channels=(16, 32), latent_channels=4, layers=1, head_channels=16, film_dim=16, groups=4)
    vae = build_vae(channels=(8, 8), latent_channels=4, layers=1, groups=4)
    vocoder, mel = small(), mels(40)
    exact = vocode(vocoder, mel)
    output = (
        build_functions(mode, (unet.to(kind), vae.to(kind), vocoder.to(kind), NoClap()))
        .vocode(mel.to(kind))
        .float()
    )
    assert torch.equal(output, exact) if mode == "exact" else (output - exact).std() < 0.5 * exact.std()
