"""What the new vocoder is trained with: crops at their levels, losses, and its game."""

import pytest
import torch

from audioldm.batch import Batch
from audioldm.losses.spectral import multi_scale_mel
from audioldm.nets.discriminators import WaveDiscriminator
from audioldm.nets.istft_vocoder import ISTFTVocoder
from audioldm.spec import AudioSpec
from audioldm.training.vocoder import VocoderLoss, VocoderTraining, Weights
from recipes.embedded.sound_bank import SoundBank, gained, mixed, notes


def tone(hertz: float, samples: int, level: float = 0.3) -> torch.Tensor:
    return (level * 32767 * torch.sin(2 * torch.pi * hertz * torch.arange(samples) / 16000)).to(torch.int16)


def bank() -> SoundBank:
    held = SoundBank(200_000, 4, "cpu")
    loud = torch.cat([tone(500, 16000), tone(500, 16000, 0.003)])  # a clip whose end is 40 dB softer
    held.add([loud], [1.0])
    return held


def test_a_crop_keeps_the_level_that_it_has_in_its_clip():
    torch.manual_seed(0)
    crops = bank().crops(64, 8000, speeds=False)
    peaks = crops.abs().amax(1)
    assert float(peaks.max()) == pytest.approx(0.5, abs=0.01)  # the clip's peak
    assert int(((peaks > 0) & (peaks < 0.006)).sum()) > 5  # crops of its end stay 40 dB softer


def test_a_crop_at_another_speed_has_another_pitch_and_no_alias():
    torch.manual_seed(1)
    held = SoundBank(200_000, 4, "cpu")
    held.add([tone(7000, 64000)], [1.0])
    crops = held.crops(64, 8000, speeds=True)
    track = torch.fft.rfft(crops * torch.hann_window(8000)).abs()
    pitch = track.argmax(1) * 2.0
    scores = track.amax(1) > 50
    assert ((pitch[scores] - 7000).abs() < 5).float().mean() > 0.4  # as it is
    assert not ((pitch[scores] > 5000) & (pitch[scores] < 5200)).any()  # nothing lower than three quarters
    assert (pitch[scores] < 6900).any()


def test_clips_are_drawn_by_weight_and_may_come_later():
    torch.manual_seed(2)
    held = bank()
    held.add([tone(2000, 32000)], [3.0])
    crops = held.crops(400, 4000, speeds=False)
    track = torch.fft.rfft(crops * torch.hann_window(4000)).abs()
    later = (track.argmax(1) - 500).abs() < 3
    assert 0.68 < float(later.float().mean()) < 0.82


def test_gains_reach_forty_decibels_down_and_silence_comes():
    torch.manual_seed(3)
    wave = torch.full((2000, 10), 0.5)
    level = gained(wave).abs().amax(1)
    assert float(level.max()) < 0.5 * 10 ** (5.01 / 20)
    assert 0.01 < float((level == 0).float().mean()) < 0.035
    assert 0.0049 < float(level[level > 0].min()) < 0.01
    assert not torch.equal(mixed(torch.randn(8, 10), chance=1.0), wave[:8])


def test_notes_are_finite_and_at_the_peak():
    torch.manual_seed(4)
    output = notes(16, 16640, 16000, "cpu")
    assert bool(output.isfinite().all()) and float(output.abs().max()) == pytest.approx(0.5, abs=1e-3)


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
    assert float(module.terms(wave, pick)[0]["mel"]) < 0.5 * before
