"""musicnn read from its package without TensorFlow, against what the package itself gave with TensorFlow."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from audioldm.errors import AudioLDMError
from audioldm.evaluation.embedders import load_embedder, musicnn

try:
    FOLDER = musicnn.packaged()
except AudioLDMError:
    FOLDER = None
needs_package = pytest.mark.skipif(FOLDER is None, reason="pip install --no-deps musicnn==0.1.0")


def tune() -> torch.Tensor:
    """Seven seconds: a plucked 440 Hz twice a second, a 660 Hz that comes and goes, a little noise."""
    time = np.arange(16000 * 7) / 16000
    wave = 0.3 * np.sin(2 * np.pi * 440 * time) * np.exp(-(time % 0.5) * 6)
    wave += 0.2 * np.sin(2 * np.pi * 660 * time) * (np.sin(2 * np.pi * 0.7 * time) > 0)
    wave += 0.02 * np.random.RandomState(0).randn(len(time))
    return torch.from_numpy(wave.astype(np.float32))


PUBLISHED = {
    "musicnn": [0.0458, 0.0002, 0.1291, 0.0295, 0.0004, 0.1759, 0.0762, 0.0197],
    "musicnn-msd": [0.0223, 0.0079, 0.0336, 0.0548, 0.5686, 0.0177, 0.0734, 0.0150],
}
"""the first 8 of 50 tags of tune()'s first 3 s by musicnn 0.1.0 under TensorFlow 2.15.1, as printed"""


@needs_package
@pytest.mark.parametrize("name", PUBLISHED)
def test_tags_are_the_packages_own(name: str) -> None:
    judge = load_embedder(name)
    heard = judge.embed(tune())
    assert heard.rows.shape == (2, 200)
    assert heard.logits.shape == (2, 50)
    expected = torch.tensor(PUBLISHED[name])
    torch.testing.assert_close(heard.logits[0, :8].sigmoid(), expected, rtol=0, atol=6e-5)  # four digits
    assert sum(p.numel() for p in judge.net.parameters()) == 787_159
    with pytest.raises(AudioLDMError, match="not finite"):
        judge.embed(torch.full((16000,), torch.nan))


def test_front_end_is_librosas() -> None:
    import librosa

    wave = tune()
    power = librosa.feature.melspectrogram(y=wave.numpy(), sr=16000, hop_length=256, n_fft=512, n_mels=96)
    expected = np.log10(1 + 10000 * power.T.astype(np.float16).astype(np.float32))
    ours = musicnn.patches(wave)
    assert ours.shape == (2, 187, 96)
    # a power that rounds to the other neighbour in float16 moves the logarithm by 2^-11 / ln 10
    np.testing.assert_allclose(ours.reshape(-1, 96).numpy(), expected[: 2 * 187], rtol=0, atol=5e-4)
    assert musicnn.patches(torch.zeros(10)).shape == (1, 187, 96)


@needs_package
def test_other_bytes_and_a_missing_package_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(FOLDER / "MTT_musicnn", tmp_path / "MTT_musicnn")
    (tmp_path / "MTT_musicnn" / ".data-00000-of-00001").write_bytes(b"x")
    with pytest.raises(AudioLDMError, match="not 041f3935"):
        load_embedder("musicnn", tmp_path)
    with pytest.raises(AudioLDMError, match=r"MSD_musicnn.*8579734e.*pip install --no-deps"):
        load_embedder("musicnn-msd", tmp_path)
    monkeypatch.setattr(musicnn, "package_folder", lambda name: None)
    with pytest.raises(AudioLDMError, match=r"041f3935.*pip install --no-deps musicnn==0.1.0"):
        load_embedder("musicnn")
