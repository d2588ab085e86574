"""The mel front end against librosa, and its lengths."""

import librosa
import numpy as np
import pytest
import torch

from audioldm.signal.level import normalise_peak
from audioldm.signal.mel import LogMel, filterbank, log_mel
from audioldm.spec import SPECS

SPEC = SPECS["16k_64"]


def sound(samples: int, seed: int = 0) -> torch.Tensor:
    time = torch.arange(samples) / SPEC.rate
    noise = 0.05 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))
    return (0.4 * torch.sin(2 * torch.pi * 440 * time * (1 + time)) + noise)[None, None]


def test_bank_and_log_mel_equal_librosas():
    # librosa's bank and a plain Fourier transform: its own stft takes seconds to compile
    bank = librosa.filters.mel(sr=16000, n_fft=1024, n_mels=64, fmin=0, fmax=8000)
    # torchaudio builds the triangles in float32: 1e-3 Hz of rounding on slopes 15 Hz wide
    np.testing.assert_allclose(filterbank(SPEC).numpy(), bank, atol=1e-4 * bank.max())
    wave = sound(163840)
    padded = np.pad(wave[0, 0].double().numpy(), 432, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, 1024)[::160] * np.hanning(1025)[:-1]
    theirs = np.maximum(np.abs(np.fft.rfft(frames)) @ bank.T, 1e-5)
    ours = log_mel(wave, SPEC)[0, 0].exp().numpy()
    assert ours.shape == theirs.shape == (1024, 64)
    error = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
    assert error < 1e-4  # the issue's own bound; float32 sums of 513 bins give about 1e-6


def test_module_and_function_agree_and_run_in_float64():
    wave = sound(16000)
    assert torch.equal(LogMel(SPEC)(wave), log_mel(wave, SPEC))
    difference = (log_mel(wave.double(), SPEC) - log_mel(wave, SPEC)).abs().max()
    assert difference < 1e-2  # the log near the floor magnifies float32 rounding of tiny magnitudes


@pytest.mark.parametrize("samples", [433, 1000, 16000, 16001, 163840])
def test_frames_are_whole_hops(samples: int):
    assert log_mel(sound(samples), SPEC).shape == (1, 1, samples // 160, 64)


def test_silence_sits_on_the_floor():
    assert torch.allclose(log_mel(torch.zeros(1, 1, 1600), SPEC), torch.tensor(-11.512925))


def test_too_short_and_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="432"):
        log_mel(torch.zeros(1, 1, 432), SPEC)
    with pytest.raises(ValueError, match=r"\(B, 1, N\)"):
        log_mel(torch.zeros(1, 16000), SPEC)


def test_normalise_peak_bounds_its_gain_and_keeps_rows_apart():
    wave = torch.stack([sound(8000)[0], 0.001 * sound(8000)[0], torch.zeros(1, 8000)])
    level = normalise_peak(wave).abs().amax((1, 2))
    assert torch.allclose(level[0], torch.tensor(0.5))
    assert level[1] < 0.05  # at most 20 times louder
    assert level[2] == 0
