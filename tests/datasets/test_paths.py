"""What lies outside the folder that was named is never read, written or removed, whatever the data say."""

import json
import os
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from sounds import save

from audioldm.datasets import manifest
from audioldm.datasets.latents import Encoded, read_index, read_shards, write_index, write_latents
from audioldm.errors import AudioLDMError
from audioldm.paths import inside, published, sha256, staged, sweep, write_text

NAMES = (
    "../secret.wav",
    "/etc/passwd",
    "a/../../secret.wav",
    "C:\\secret.wav",
    "..\\secret.wav",
    "",
    "a\0b",
    "link/x.wav",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path)
    return tmp_path / "root"


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_leads_out_is_refused_in_one_line(folder: Path, name: str):
    with pytest.raises(AudioLDMError, match="leads out of") as caught:
        inside(folder, name, where="list.jsonl:3")
    assert str(caught.value).startswith("list.jsonl:3: ") and "\n" not in str(caught.value)


def test_names_within_stay(folder: Path):
    (folder / "near").symlink_to(folder / "far")
    for name in ("a.wav", "a/b.wav", "near/c.wav", "two..dots.wav", "é.wav"):
        assert inside(folder, name) == folder / name


def test_a_file_appears_whole_or_not_at_all(folder: Path):
    path = write_text(folder / "x.txt", "old")
    with pytest.raises(TypeError), staged(path) as stage:
        stage.write_text("half") + "text"
    assert path.read_text() == "old" and sorted(p.name for p in folder.iterdir()) == ["link", "x.txt"]
    with staged(folder / "new", folder=True) as stage:
        (stage / "a").write_text("a")
    assert (folder / "new" / "a").read_text() == "a"
    before = os.umask(0o027)
    try:
        assert write_text(folder / "y.txt", "").stat().st_mode & 0o777 == 0o640, (
            "the rights that the user set"
        )
    finally:
        os.umask(before)


@pytest.mark.parametrize("before", [None, "old"])
def test_a_published_folder_is_the_old_or_the_new_one(folder: Path, before: str | None):
    place = folder / "model"
    if before:
        (place / "unet").mkdir(parents=True)
        (place / "unet" / "a").write_text(before)
        (place / "notes.txt").write_text("the user's own")
    with suppress(RuntimeError), published(place) as stage:
        (stage / "half").write_text("x")
        raise RuntimeError
    assert not (place / "half").exists() and (before is None or (place / "unet" / "a").read_text() == before)
    with published(place) as stage:
        (stage / "unet").mkdir()
        (stage / "unet" / "a").write_text("new")
        (stage / "index.json").write_text("{}")
    names = {"unet", "index.json", *(["notes.txt"] if before else [])}
    assert {path.name for path in place.iterdir()} == names, "no stage stays, and nothing of the user's goes"
    assert (place / "unet" / "a").read_text() == "new"


def test_what_killed_runs_left_goes_and_what_others_write_stays(folder: Path):
    gone, running = folder / ".x.txt.999999999-00000000.part", folder / f".x.txt.{os.getpid()}-00000000.part"
    (folder / ".work.999999999-00000000.part").mkdir()
    for path in (gone, running, folder / ".mine.part"):
        path.write_text("")
    assert len(sweep(folder)) == 2
    assert not gone.exists() and running.exists() and (folder / ".mine.part").exists()


@pytest.mark.parametrize("name", ["../secret.wav", "link/secret.wav"])
def test_a_manifest_names_no_sound_outside_its_folder(folder: Path, name: str):
    save(folder.parent / "secret.wav")
    (folder / "m.jsonl").write_text(json.dumps({"path": name, "captions": ["x"]}) + "\n")
    with pytest.raises(AudioLDMError, match=r"m\.jsonl:1: the path .* leads out"):
        manifest.read(folder / "m.jsonl")


def test_a_cache_names_no_shard_outside(tmp_path: Path):
    window = Encoded(torch.zeros(1, 2, 2), torch.ones(1, 2, 2), torch.zeros(2), torch.zeros(1, 2), "x")
    index = write_latents([window], tmp_path / "cache", about={})
    os.rename(tmp_path / "cache" / "latents-00000.safetensors", tmp_path / "secret.safetensors")
    index["shards"][0]["name"] = "../secret.safetensors"
    write_index(tmp_path / "cache", index)
    assert read_index(tmp_path / "cache")["windows"] == 1
    with pytest.raises(AudioLDMError, match="leads out of"):
        list(read_shards(tmp_path / "cache"))


def test_a_parquet_row_reads_no_file_outside_its_folder(tmp_path: Path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    from audioldm.datasets.prepare.packed import opened

    (tmp_path / "in").mkdir()
    secret = save(tmp_path / "secret.wav")
    audio = [{"bytes": None, "path": str(secret)}]
    pq.write_table(pa.table({"audio": audio, "text": ["x"]}), tmp_path / "in" / "a.parquet")
    (sample,) = opened(str(tmp_path / "in" / "a.parquet"), "audio")
    assert sample.audio is None and "leads out of" in sample.fault


def test_a_folder_that_is_replaced_comes_back_if_the_run_is_killed_in_between(folder: Path):
    place, aside = folder / "new", folder / ".new.old"
    for content in ("old", "new"):
        with staged(place, folder=True, replace=True) as stage:
            (stage / "a").write_text(content)
    assert (place / "a").read_text() == "new" and not aside.exists()
    place.rename(aside)  # as a kill leaves it
    with pytest.raises(ZeroDivisionError), staged(place, folder=True, replace=True):
        raise ZeroDivisionError
    assert (place / "a").read_text() == "new" and not aside.exists()


def test_every_library_s_full_disk_is_one_line(folder: Path):
    for error in (OSError(28, "No space left on device"), RuntimeError("I/O error: ... (os error 28)")):
        said = pytest.raises(AudioLDMError, match="could not be written: No space left on device")
        with said as caught, staged(folder / "x.bin"):
            raise error
        assert caught.value.code == 1
    with pytest.raises(RuntimeError), staged(folder / "x.bin"):
        raise RuntimeError("os error 2")


def test_what_has_no_end_is_not_hashed(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    (tmp_path / "holes").touch()
    os.truncate(tmp_path / "holes", 2**40)
    for name in ("pipe", "endless", "holes"):
        with pytest.raises(OSError, match=r"no file|next to nothing"):
            sha256(tmp_path / name)
    (tmp_path / "few").write_bytes(b"rain")
    os.truncate(tmp_path / "few", 2**20)
    assert len(sha256(tmp_path / "few")) == 64
