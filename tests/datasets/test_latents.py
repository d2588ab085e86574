"""The latent cache: raw posteriors in, the same out; a scale that is measured over all of it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from audioldm.datasets import cache as shards
from audioldm.datasets import latents
from audioldm.datasets.cache import Encoded, write_index, write_latents
from audioldm.datasets.latents import LatentDataset, collate_latents, measure
from audioldm.errors import AudioLDMError


def windows(n: int = 5):
    g = torch.Generator().manual_seed(0)
    for i in range(n):
        yield Encoded(
            2 * torch.randn(4, 8, 4, generator=g) + 1,
            torch.full((4, 8, 4), 0.5),
            torch.randn(6, generator=g),
            torch.randn(1 + i % 3, 6, generator=g),
            f"source{i % 2}",
        )


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(shards, "SHARD", 2)  # three shards of five windows
    write_latents(windows(), tmp_path, about={"null": [0.0] * 6})
    return tmp_path


def test_what_goes_in_comes_out(cache: Path):
    data = LatentDataset(cache, seed=0)
    assert len(data) == 5 and data.sources == ["source0", "source1", "source0", "source1", "source0"]
    for i, window in enumerate(windows()):
        item = data[i]
        assert torch.allclose(item.mean, window.mean, rtol=1e-3, atol=1e-3)  # float16 on disk: 11 bits
        assert torch.equal(item.audio, window.audio)
        assert any(torch.equal(item.text, row) for row in window.text)
    batch = collate_latents([data[0], data[1]])
    assert batch.mean.shape == (2, 4, 8, 4) and batch.text.shape == (2, 6)


def test_draws_choose_among_a_windows_own_captions(cache: Path):
    data, window = LatentDataset(cache, seed=0), list(windows())[2]
    texts = {tuple(data[(2, draw)].text.tolist()) for draw in range(30)}
    assert texts == {tuple(row.tolist()) for row in window.text}
    assert torch.equal(data[(2, 7)].text, data[(2, 7)].text)


def test_the_scale_is_the_deviation_of_posterior_samples(cache: Path):
    found = measure(cache)
    mean = torch.stack([w.mean for w in windows()]).half().double()
    expected = (mean.var(correction=0) + 0.25) ** 0.5
    assert found["std"] == pytest.approx(float(expected), rel=1e-9)
    assert found["scaling_factor"] == pytest.approx(1 / float(expected), rel=1e-9)
    with pytest.raises(AudioLDMError, match="data stats"):
        latents.scaling_factor(cache)
    write_index(cache, {**json.loads((cache / "index.json").read_text()), **found})
    assert latents.scaling_factor(cache) == found["scaling_factor"]
    assert torch.equal(latents.null_embedding(cache), torch.zeros(6))


def test_raw_posteriors_are_stored_unscaled(cache: Path):
    shard = load_file(cache / "latents-00000.safetensors")
    assert torch.allclose(shard["std"].float(), torch.tensor(0.5))
    assert shard["offset"].tolist() == [0, 1, 3]


def test_damage_and_emptiness_are_told(tmp_path: Path, cache: Path):
    with pytest.raises(AudioLDMError, match="no latent cache"):
        LatentDataset(tmp_path / "nothing", seed=0)
    with pytest.raises(AudioLDMError, match="No window"):
        write_latents([], tmp_path / "empty", about={})
    path = cache / "latents-00001.safetensors"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(AudioLDMError, match="latents-00001"):
        LatentDataset(cache, seed=0)
