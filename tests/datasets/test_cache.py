"""The cache on disk: found by its key, gone on with after a cut, refused when stale or damaged, read by memory map."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from audioldm.datasets import cache
from audioldm.datasets.cache import (
    Encoded,
    begun,
    ingredient,
    key_of,
    read_index,
    read_shards,
    write_latents,
)
from audioldm.datasets.latents import LatentDataset, collate_latents, measure
from audioldm.errors import AudioLDMError


def windows(n=7, frames=(8,) * 7, tokens=False):
    rng = torch.Generator().manual_seed(0)
    for i in range(n):
        captions = 1 + i % 3
        yield Encoded(
            2 * torch.randn(4, frames[i], 4, generator=rng) + 1,
            torch.rand(4, frames[i], 4, generator=rng),
            torch.randn(6, generator=rng),
            torch.randn(captions, 6, generator=rng),
            f"source{i % 2}",
            tuple(torch.randn(2 + i + j, 5, generator=rng) for j in range(captions)) if tokens else (),
        )


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(cache, "SHARD", 2)


def cut_off(stream, after):
    for i, window in enumerate(stream):
        if i == after:
            raise KeyboardInterrupt
        yield window


def test_a_cut_off_cache_goes_on_and_ends_the_same(tmp_path):
    about = {"key": "k", "null": [0.0]}
    write_latents(windows(), tmp_path / "whole", about=about)
    with pytest.raises(KeyboardInterrupt):
        write_latents(cut_off(windows(), 5), tmp_path / "cut", about=about)
    with pytest.raises(AudioLDMError, match="cut off after 4 windows"):
        LatentDataset(tmp_path / "cut", seed=0)
    done = begun(tmp_path / "cut", "k", force=False)
    assert done == 4, "two whole shards of two; the fifth window was waiting"
    write_latents(list(windows())[done:], tmp_path / "cut", about=about)
    assert begun(tmp_path / "cut", "k", force=False) is None
    for name in sorted(path.name for path in (tmp_path / "whole").iterdir()):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_killed_writer_leaves_only_whole_shards(tmp_path):
    code = f"""
import os, signal, torch
from audioldm.datasets import cache
cache.SHARD = 2
def windows():
    for i in range(9):
        if i == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        yield cache.Encoded(torch.full((2, 4, 2), float(i)), torch.ones(2, 4, 2), torch.ones(3), torch.ones(1, 3), "s")
cache.write_latents(windows(), {str(tmp_path)!r}, about={{"key": "k"}})
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == -9
    assert begun(tmp_path, "k", force=False) in (4, 6), "the last one may have been in the writer's hands"
    index = json.loads((tmp_path / "index.json").read_text())
    assert all((tmp_path / entry["name"]).stat().st_size == entry["bytes"] for entry in index["shards"])


def test_another_key_is_refused_unless_forced(tmp_path):
    write_latents(windows(), tmp_path, about={"key": "k"})
    with pytest.raises(AudioLDMError, match="something else"):
        begun(tmp_path, "other", force=False)
    assert begun(tmp_path, "other", force=True) == 0
    assert not list(tmp_path.glob("*"))
    assert key_of({"a": [1.0, 2.0]}) != key_of({"a": [2.0, 1.0]})


@pytest.mark.parametrize("what", ["manifest", "encoder"])
def test_a_stale_cache_is_refused_and_a_trained_on_decoder_is_not(tmp_path, what):
    manifest, vae = tmp_path / "m.jsonl", tmp_path / "vae.safetensors"
    manifest.write_text("{}")
    weights = {"encoder.a": torch.ones(3), "quant_conv.b": torch.ones(2), "decoder.c": torch.ones(2)}
    save_file(weights, vae)
    made_of = [ingredient("manifest", manifest), ingredient("VAE", vae, ("encoder.", "quant_conv."))]
    write_latents(windows(), tmp_path / "c", about={"made_of": made_of})
    save_file({**weights, "decoder.c": torch.zeros(2)}, vae)
    assert len(LatentDataset(tmp_path / "c", seed=0)) == 7
    if what == "manifest":
        manifest.write_text("{} ")
    else:
        save_file({**weights, "encoder.a": torch.zeros(3)}, vae)
    with pytest.raises(AudioLDMError, match=r"stale: its (manifest|VAE) .* Encode again") as caught:
        LatentDataset(tmp_path / "c", seed=0)
    assert caught.value.code == 2
    manifest.unlink()
    vae.unlink()
    assert len(LatentDataset(tmp_path / "c", seed=0)) == 7, (
        "on a machine without its sources a cache is trusted"
    )


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_shard_is_named(tmp_path, damage):
    write_latents(windows(), tmp_path, about={})
    path = tmp_path / "latents-00001.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(data if damage == "flipped" else data[:50])
    with pytest.raises(AudioLDMError, match=r"latents-00001\.safetensors is damaged") as caught:
        LatentDataset(tmp_path, seed=0)
    assert caught.value.code == 1


def test_a_damaged_index_is_named(tmp_path):
    write_latents(windows(), tmp_path, about={})
    (tmp_path / "index.json").write_text('{"shards": [')
    with pytest.raises(AudioLDMError, match=r"index\.json is damaged"):
        read_index(tmp_path)


def test_shards_are_mapped_not_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "SHARD", 64)
    big = (
        Encoded(torch.zeros(8, 256, 16), torch.ones(8, 256, 16), torch.ones(4), torch.ones(1, 4), "s")
        for _ in range(256)
    )
    write_latents(big, tmp_path, about={})  # 4 shards of 8 MB

    def resident():
        """kB of memory that really holds pages of the shards."""
        total, inside = 0, False
        for line in Path("/proc/self/smaps").read_text().splitlines():
            first = line.split()[0]
            if "-" in first and not first.endswith(":"):
                inside = str(tmp_path) in line
            elif inside and first == "Rss:":
                total += int(line.split()[1])
        return total

    shards = list(read_shards(tmp_path, verify=False))
    assert str(tmp_path) in Path("/proc/self/maps").read_text()
    before = resident()
    assert float(shards[2]["mean"][3].float().sum()) == 0.0
    assert resident() - before < 4000, "one window of 64 kB and the kernel's read-ahead, not 8 MB"


def test_workers_open_the_map_themselves(tmp_path):
    write_latents(windows(), tmp_path, about={})
    data = LatentDataset(tmp_path, seed=0)
    packed = pickle.dumps(data)
    assert len(packed) < 4000
    assert torch.equal(pickle.loads(packed)[3].mean, data[3].mean)
    batches = list(torch.utils.data.DataLoader(data, batch_size=3, num_workers=2, collate_fn=collate_latents))
    assert torch.equal(batches[1].mean[0], data[3].mean)
    with pytest.raises(IndexError):
        data[7]


def test_token_sequences_come_back_padded_with_a_mask(tmp_path):
    write_latents(windows(tokens=True), tmp_path, about={})
    data, wanted = LatentDataset(tmp_path, seed=0), list(windows(tokens=True))
    for i, window in enumerate(wanted):
        item = data[i]
        place = next(j for j, text in enumerate(window.text) if torch.equal(text, item.text))
        assert torch.allclose(item.tokens, window.tokens[place], rtol=1e-3, atol=1e-3)  # float16 on disk
    batch = collate_latents([data[0], data[4]]).to("cpu")
    assert batch.tokens.shape[:2] == batch.mask.shape
    assert batch.mask.sum(1).tolist() == [len(data[0].tokens), len(data[4].tokens)]
    assert float(batch.tokens[batch.mask == 0].abs().sum()) == 0.0
    assert collate_latents([item for item in [data[0]]]).tokens is not None


def test_lengths_of_several_buckets_lie_in_shards_of_their_own(tmp_path):
    frames = (4, 4, 4, 8, 8, 16, 16)
    index = write_latents(windows(frames=frames), tmp_path, about={})
    assert [entry["windows"] for entry in index["shards"]] == [2, 1, 2, 2]
    data = LatentDataset(tmp_path, seed=0)
    assert data.frames == list(frames) and data[5].mean.shape == (4, 16, 4)


def test_the_scale_is_that_of_all_samples(tmp_path):
    write_latents(windows(), tmp_path, about={})
    shards = [load_file(path) for path in sorted(tmp_path.glob("*.safetensors"))]
    mean = torch.cat([shard["mean"] for shard in shards]).double()
    std = torch.cat([shard["std"] for shard in shards]).double()
    expected = (mean.var(correction=0) + std.square().mean()) ** 0.5
    assert measure(tmp_path)["std"] == pytest.approx(float(expected), rel=1e-9)
    assert measure(tmp_path)["scaling_factor"] == pytest.approx(1 / float(expected), rel=1e-9)
