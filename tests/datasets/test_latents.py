"""The cache on disk: found by its key, gone on with after a cut, refused when stale or damaged, read by memory map."""

import json
import os
import pickle
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from audioldm.datasets import latents
from audioldm.datasets.latents import (
    Encoded,
    LatentDataset,
    begun,
    collate_latents,
    ingredient,
    key_of,
    measure,
    read_index,
    read_shards,
    write_index,
    write_latents,
)
from audioldm.errors import AudioLDMError


def windows(frames=(8,) * 7, tokens=False):
    rng = torch.Generator().manual_seed(0)
    for i, length in enumerate(frames):
        captions = 1 + i % 3
        yield Encoded(
            2 * torch.randn(4, length, 4, generator=rng) + 1,
            torch.rand(4, length, 4, generator=rng),
            torch.randn(6, generator=rng),
            torch.randn(captions, 6, generator=rng),
            f"source{i % 2}",
            tuple(torch.randn(2 + i + j, 5, generator=rng) for j in range(captions)) if tokens else (),
        )


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(latents, "SHARD", 2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_latents(windows(), tmp_path / "cache", about={"key": "k", "null": [0.0] * 6})
    return tmp_path / "cache"


def until(stream, count: int, end):
    for i, window in enumerate(stream):
        if i == count:
            end()
        yield window


def test_what_goes_in_comes_out(folder: Path):
    data = LatentDataset(folder, seed=0)
    assert len(data) == 7 and data.sources == [f"source{i % 2}" for i in range(7)]
    for i, window in enumerate(windows()):
        item = data[i]
        assert torch.allclose(item.mean, window.mean, rtol=1e-3, atol=1e-3)  # float16 on disk: 11 bits
        assert torch.allclose(item.std, window.std, rtol=1e-3, atol=1e-3), "raw posteriors, never scaled"
        assert torch.equal(item.audio, window.audio)
    batch = collate_latents([data[0], data[1]])
    assert batch.mean.shape == (2, 4, 8, 4) and batch.text.shape == (2, 6)
    texts = {tuple(data[(2, draw)].text.tolist()) for draw in range(30)}
    assert texts == {tuple(row.tolist()) for row in list(windows())[2].text}, (
        "draws are of a window's own captions"
    )
    assert torch.equal(data[(2, 7)].text, data[(2, 7)].text)
    with pytest.raises(IndexError):
        data[7]


def test_the_scale_is_the_deviation_of_posterior_samples(folder: Path):
    shards = [load_file(path) for path in sorted(folder.glob("*.safetensors"))]
    mean, std = (torch.cat([shard[name] for shard in shards]).double() for name in ("mean", "std"))
    expected = float((mean.var(correction=0) + std.square().mean()) ** 0.5)
    measured = measure(folder)
    assert measured["std"] == pytest.approx(expected, rel=1e-9)
    assert measured["scaling_factor"] == pytest.approx(1 / expected, rel=1e-9)
    with pytest.raises(AudioLDMError, match="data encode"):
        latents.scaling_factor(folder)
    write_index(folder, {**read_index(folder), **measured})
    assert latents.scaling_factor(folder) == measured["scaling_factor"]
    assert torch.equal(latents.null_embedding(folder), torch.zeros(6))


def test_a_cut_off_cache_goes_on_and_ends_the_same(tmp_path: Path, folder: Path):
    def interrupt():
        raise KeyboardInterrupt

    about = {"key": "k", "null": [0.0] * 6}
    with pytest.raises(KeyboardInterrupt):
        write_latents(until(windows(), 5, interrupt), tmp_path / "cut", about=about)
    with pytest.raises(AudioLDMError, match="cut off after 4 windows"):
        LatentDataset(tmp_path / "cut", seed=0)
    done = begun(tmp_path / "cut", "k", force=False)
    assert done == 4, "two whole shards of two; the fifth window was waiting"
    write_latents(list(windows())[done:], tmp_path / "cut", about=about)
    assert begun(tmp_path / "cut", "k", force=False) is None
    for path in folder.iterdir():
        assert (tmp_path / "cut" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_writer_leaves_only_whole_shards(tmp_path: Path):
    if not (child := os.fork()):
        torch.set_num_threads(1)  # a forked torch may wait for threads that it lost
        write_latents(
            until(windows(), 6, lambda: os.kill(os.getpid(), signal.SIGKILL)), tmp_path, about={"key": "k"}
        )
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert begun(tmp_path, "k", force=False) in (4, 6), "the last one may have been in the writer's hands"
    index = json.loads((tmp_path / "index.json").read_text())
    assert all((tmp_path / entry["name"]).stat().st_size == entry["bytes"] for entry in index["shards"])


def test_another_key_is_refused_unless_forced(folder: Path):
    with pytest.raises(AudioLDMError, match="something else"):
        begun(folder, "other", force=False)
    assert begun(folder, "other", force=True) == 0 and not list(folder.glob("*"))
    assert key_of({"a": [1.0, 2.0]}) != key_of({"a": [2.0, 1.0]})


@pytest.mark.parametrize("what", ["manifest", "VAE"])
def test_a_stale_cache_is_refused_and_a_trained_on_decoder_is_not(tmp_path: Path, what: str):
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
    with pytest.raises(AudioLDMError, match=rf"stale: its {what} .* Encode again") as caught:
        LatentDataset(tmp_path / "c", seed=0)
    assert caught.value.code == 2
    manifest.unlink()
    vae.unlink()
    assert len(LatentDataset(tmp_path / "c", seed=0)) == 7, (
        "on a machine without its sources a cache is trusted"
    )


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "index", "nothing"])
def test_damage_is_named(folder: Path, damage: str):
    path = folder / ("index.json" if damage == "index" else "latents-00001.safetensors")
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    if damage == "gone":
        path.unlink()
    elif damage == "nothing":
        folder = folder / "nowhere"
    else:
        path.write_bytes({"flipped": data, "cut": data[:50], "index": b'{"shards": ['}[damage])
    with pytest.raises(AudioLDMError, match=f"{path.name} is (damaged|not JSON)|no latent cache") as caught:
        LatentDataset(folder, seed=0)
    assert caught.value.code == (2 if damage in ("nothing", "index") else 1)
    with pytest.raises(AudioLDMError, match="No window"):
        write_latents([], folder / "empty", about={})


def test_shards_are_mapped_not_loaded(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(latents, "SHARD", 64)
    big = Encoded(torch.zeros(8, 256, 16), torch.ones(8, 256, 16), torch.ones(4), torch.ones(1, 4), "s")
    write_latents((replace(big) for _ in range(128)), tmp_path, about={})  # 2 shards of 8 MB

    def resident() -> int:
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
    assert float(shards[1]["mean"][3].float().sum()) == 0.0
    assert resident() - before < 4000, "one window of 64 kB and the kernel's read-ahead, not 8 MB"


def test_workers_open_the_map_themselves(folder: Path):
    data = LatentDataset(folder, seed=0)
    packed = pickle.dumps(data)
    assert len(packed) < 4000 and torch.equal(pickle.loads(packed)[3].mean, data[3].mean)


def test_token_sequences_come_back_padded_with_a_mask(tmp_path: Path):
    write_latents(windows(tokens=True), tmp_path, about={})
    data = LatentDataset(tmp_path, seed=0)
    for i, window in enumerate(windows(tokens=True)):
        item = data[i]
        place = next(j for j, text in enumerate(window.text) if torch.equal(text, item.text))
        assert torch.allclose(item.tokens, window.tokens[place], rtol=1e-3, atol=1e-3)  # float16 on disk
    batch = collate_latents([data[0], data[4]])
    assert batch.mask.sum(1).tolist() == [len(data[0].tokens), len(data[4].tokens)]
    assert batch.tokens.shape[:2] == batch.mask.shape and not batch.tokens[batch.mask == 0].any()


def test_lengths_of_several_buckets_lie_in_shards_of_their_own(tmp_path: Path):
    frames = (4, 4, 4, 8, 8, 16, 16)
    index = write_latents(windows(frames), tmp_path, about={})
    assert [entry["windows"] for entry in index["shards"]] == [2, 1, 2, 2]
    data = LatentDataset(tmp_path, seed=0)
    assert data.frames == list(frames) and data[5].mean.shape == (4, 16, 4)
