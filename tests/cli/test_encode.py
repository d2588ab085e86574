"""``audioldm data encode`` with tiny nets: keyed, resumed, bucketed, mixed; T5 is in tests/recipes/test_cross.py."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file

from audioldm.datasets import latents
from audioldm.datasets.latents import LatentDataset
from audioldm.datasets.manifest import Row, write
from audioldm.datasets.synthetic import Synthetic
from audioldm.spec import SPECS


@pytest.fixture
def manifest(tmp_path):
    """Eight clips of 0.4 to 1.5 s."""
    from audioldm.datasets.decode import encode

    rows = []
    for i in range(8):
        seconds = 0.4 if i < 5 else 1.5
        data = Synthetic(SPECS["16k_64"], seconds, 8, seed=0)
        path = encode(tmp_path / f"{i}.flac", data[i][0][0], 16000)
        rows.append(Row(str(path), (f"sound {i}", f"noise {i}"), seconds=seconds, source=f"s{i % 2}"))
    return write(rows, tmp_path / "m.jsonl")


@pytest.fixture
def words(tiny_model, manifest):
    return ["data", "encode", manifest, "--vae", tiny_model / "vae", "--clap", tiny_model, "--seconds", 0.64]


def test_a_whole_cache_stays_and_another_is_refused(command, words, manifest, tmp_path, capsys):
    out = tmp_path / "c"
    assert command(*words, "-o", out) == 0
    stamp = (out / "latents-00000.safetensors").stat().st_mtime_ns
    assert command(*words, "-o", out) == 0
    assert "whole already: 8 windows" in capsys.readouterr().out
    assert (out / "latents-00000.safetensors").stat().st_mtime_ns == stamp
    assert command(*words, "-o", out, "--seed", 1) == 2
    assert "something else" in capsys.readouterr().err
    manifest.write_text(manifest.read_text() + "\n")
    assert command(*words, "-o", out) == 2, "the manifest is another one now"
    with pytest.raises(Exception, match="stale: its manifest"):
        LatentDataset(out, seed=0)
    assert command(*words, "-o", out, "--force") == 0
    assert len(LatentDataset(out, seed=0)) == 8


def test_an_interrupted_encoding_goes_on(command, words, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(latents, "SHARD", 3)
    assert command(*words, "-o", tmp_path / "whole") == 0
    real, calls = torch.stack, []

    def interrupted(tensors, *rest, **more):
        calls.append(1)
        if len(calls) == 14:
            raise KeyboardInterrupt
        return real(tensors, *rest, **more)

    monkeypatch.setattr(torch, "stack", interrupted)
    assert command(*words, "-o", tmp_path / "cut") == 130
    monkeypatch.setattr(torch, "stack", real)
    assert 0 < json.loads((tmp_path / "cut/index.json").read_text())["windows"] < 8
    assert command(*words, "-o", tmp_path / "cut") == 0
    for path in (tmp_path / "whole").glob("*.safetensors"):
        one, two = load_file(path), load_file(tmp_path / "cut" / path.name)
        assert all(torch.equal(one[name], two[name]) for name in one)


def test_buckets_and_mixup(command, words, tmp_path):
    out = tmp_path / "c"
    more = ["--buckets", "0.64,1.28", "--mixup", 1.0, "--windows", 3]
    assert command(*words, "-o", out, *more) == 0
    data = LatentDataset(out, seed=0)
    assert data.frames == [16] * 15 + [32] * 9
    index = json.loads((out / "index.json").read_text())
    assert index["buckets"] == [0.64, 1.28] and index["mixup"] == 1.0 and index["seconds"] == 1.28
    assert command(*words, "-o", tmp_path / "d", "--buckets", "long") == 2
    assert command(*words, "-o", tmp_path / "d", "--mixup", 3) == 2
    assert command(*words, "-o", tmp_path / "d", "--t5", tmp_path / "nowhere") == 2


def test_captions_that_are_not_read_to_the_end_are_counted(command, words, manifest, tmp_path, capsys):
    rows = [json.loads(line) for line in manifest.read_text().split("\n") if line]
    rows[0]["captions"] = [" ".join(f"word{i}" for i in range(600))]
    manifest.write_text("\n".join(map(json.dumps, rows)))
    assert command(*words, "-o", tmp_path / "c") == 0
    assert re.search(r"1 of \d+ captions are longer than the text encoder reads", capsys.readouterr().err)


def test_a_lost_or_changed_file_is_named_and_left_out_of_every_part(
    command, words, manifest, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(latents, "SHARD", 3)
    (tmp_path / "2.flac").unlink()
    (tmp_path / "6.flac").write_bytes(b"no sound")
    out = tmp_path / "c"
    assert command(*words, "-o", out) == 0
    said = capsys.readouterr().err
    assert "missing" in said and "2.flac" in said and "corrupt" in said and "6.flac" in said
    index = json.loads((out / "index.json").read_text())
    assert (index["windows"], [path.rpartition("/")[2] for path in index["left_out"]]) == (
        6,
        ["2.flac", "6.flac"],
    )
    for path in tmp_path.glob("*.flac"):
        path.unlink()
    assert command(*words, "-o", tmp_path / "none") == 1
    assert "No sound of the manifests is left" in capsys.readouterr().err
