"""musicnn read from its package without TensorFlow, against what the package itself gave with TensorFlow."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from audioldm.errors import AudioLDMError
from audioldm.evaluation.embedders import load_embedder, musicnn
from audioldm.evaluation.embedders.musicnn import fields, read_checkpoint, table

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


def entry(dtype: int, shape: list[int], offset: int, size: int) -> bytes:
    """A BundleEntryProto of small numbers."""
    dims = b"".join(bytes([0x12, 2, 0x08, n]) for n in shape)
    return bytes([0x08, dtype, 0x12, len(dims)]) + dims + bytes([0x20, offset, 0x28, size])


def small_table(entries: dict[bytes, bytes]) -> bytes:
    """One data block, one index block, a footer: the format as LevelDB describes it, keys without shared prefixes."""

    def block(items: dict[bytes, bytes]) -> bytes:
        rows = b"".join(bytes([0, len(k), len(v)]) + k + v for k, v in items.items())
        return rows + (0).to_bytes(4, "little") + (1).to_bytes(4, "little")

    data = block(entries)
    handle = bytes([0, len(data)])
    index = block({b"~": handle})
    begin = len(data) + 5
    footer = bytes([0, 0, begin, len(index)]).ljust(40, b"\0")
    return data + bytes(5) + index + bytes(5) + footer + bytes.fromhex("57fb808b247547db")


def test_a_checkpoint_is_read_by_its_format(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float32)
    (tmp_path / "x.data-00000-of-00001").write_bytes(values.tobytes())
    found = {b"": b"", b"a": entry(1, [2, 2], 0, 16), b"b": entry(1, [2], 16, 8), b"step": entry(9, [], 0, 8)}
    (tmp_path / "x.index").write_bytes(small_table(found))
    read = read_checkpoint(str(tmp_path / "x"))
    assert set(read) == {"a", "b"}
    assert read["a"].tolist() == [[0, 1], [2, 3]]
    assert read["b"].tolist() == [4, 5]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"nothing", "no table"),
        (small_table({b"a": entry(1, [9], 0, 36)}), "outside"),
        (small_table({b"a": entry(1, [2], 0, 16)}), "outside"),
    ],
)
def test_a_broken_checkpoint_is_told(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "x.data-00000-of-00001").write_bytes(bytes(24))
    (tmp_path / "x.index").write_bytes(content)
    with pytest.raises(AudioLDMError, match=told):
        read_checkpoint(str(tmp_path / "x"))


def test_no_bytes_break_the_reader_otherwise(tmp_path: Path) -> None:
    (tmp_path / "x.data-00000-of-00001").write_bytes(bytes(24))
    good = small_table({b"a": entry(1, [2, 2], 0, 16)})
    draws = np.random.default_rng(0)
    for _ in range(300):
        bad = bytearray(good)
        bad[draws.integers(len(bad))] = draws.integers(256)
        (tmp_path / "x.index").write_bytes(bytes(bad))
        try:
            read_checkpoint(str(tmp_path / "x"))
        except AudioLDMError:
            continue
    assert dict(fields(bytes([0x08, 3, 0x15, 1, 2, 3, 4]))) == {1: 3, 2: bytes([1, 2, 3, 4])}
    assert [key for key, _ in table(good)] == [b"a"]


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
