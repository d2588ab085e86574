"""What the new vocoder is trained with: losses, and its game."""

import pytest
import torch

from audioldm.batch import Batch
from audioldm.losses.spectral import multi_scale_mel
from audioldm.nets.discriminators import WaveDiscriminator
from audioldm.nets.istft_vocoder import ISTFTVocoder
from audioldm.spec import AudioSpec
from audioldm.training.vocoder import VocoderLoss, VocoderTraining, Weights


def test_mels_of_all_scales_hear_a_shift_of_level_and_nothing_in_equal_waves():
    wave = 0.1 * torch.randn(2, 1, 8000, generator=torch.Generator().manual_seed(0))
    assert float(multi_scale_mel(wave, wave, 16000)) == 0
    assert float(multi_scale_mel(wave * 10, wave, 16000)) == pytest.approx(7.0, rel=0.05)  # 1 a scale


def test_discriminators_hear_every_pair_at_one_level():
    loss = VocoderLoss()
    real = 0.3 * torch.randn(3, 1, 4000) * torch.tensor([1.0, 0.03, 0.0])[:, None, None]
    scores = loss.levelled(torch.cat([real, real / 2]), real)
    rms = scores.square().mean((1, 2)).sqrt()
    assert rms[:2].tolist() == pytest.approx([0.1, 0.1]) and rms[3:5].tolist() == pytest.approx([0.05, 0.05])
    assert float(rms[2]) == 0


def test_the_discriminator_sees_phases():
    torch.manual_seed(0)
    discriminators = WaveDiscriminator(periods=(), resolutions=(512,), resolution_width=4, phases=True)
    wave = torch.randn(1, 1, 4096)
    (plain, _), (turned, _) = discriminators(wave)[0], discriminators(-wave)[0]
    assert not torch.allclose(plain, turned, atol=1e-4)  # of one magnitude
    loss = VocoderLoss(Weights(multi_scale_mel=0.0))
    output = torch.randn(1, 1, 4096, requires_grad=True)
    loss.total(loss.of_generator(discriminators, output, wave)).backward()
    assert bool(output.grad.isfinite().all()) and all(p.grad is None for p in discriminators.parameters())
    loss.of_discriminator(discriminators, output, wave).backward()
    assert all(p.grad is not None for p in discriminators.parameters())


def test_the_new_vocoder_learns_one_batch():
    torch.manual_seed(0)
    spec = AudioSpec()
    net = ISTFTVocoder(width=32, hidden=64, depth=2, noise=8)
    module = VocoderTraining(net, spec, batches=60, normalise=False)
    time = torch.arange(8000) / 16000
    wave = 0.2 * torch.sin(2 * torch.pi * 700 * time) + 0.02 * torch.randn(2, 1, 8000)
    assert torch.equal(module.prepared(Batch(wave, ["a", "b"], ["a", "b"])), wave)
    pick = torch.zeros(2, dtype=torch.bool)
    before = float(module.terms(wave, pick)[0]["mel"].detach())
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        module.losses.total(module.terms(wave, pick)[0]).backward()
        optimizer.step()
    assert float(module.terms(wave, pick)[0]["mel"].detach()) < 0.5 * before
