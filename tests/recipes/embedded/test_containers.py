"""Packages and containers built here, whole and damaged."""

import io
import struct
import zipfile

import pytest
from sounds import cat_bytes, deb_bytes, group_bytes, packed_group, tar_bytes

from audioldm.errors import AudioLDMError
from recipes.embedded import containers
from recipes.embedded.containers import archive, bounded, contents, is_container

RIFF = b"RIFF" + struct.pack("<I", 8) + b"WAVEdata"


def everything(data, name):
    return dict(contents(io.BytesIO(data), name, lambda inner: True))


def zip_bytes(files):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as box:
        for name, data in files.items():
            box.writestr(name, data)
    return file.getvalue()


def unpack(path):
    return {name: file.read() for name, file in archive(path)}


@pytest.mark.parametrize("compression", ["xz", "gz", "bz2"])
def test_deb_gives_its_plain_files(tmp_path, compression):
    path = tmp_path / "a.deb"
    path.write_bytes(deb_bytes({"./usr/a.wav": RIFF, "./usr/link": None, "./b": b"2"}, compression))
    assert unpack(path) == {"usr/a.wav": RIFF, "b": b"2"}


def test_npm_tgz_loses_its_first_folder(tmp_path):
    path = tmp_path / "a.tgz"
    path.write_bytes(tar_bytes({"package/samples/a.flac": b"1"}, "gz"))
    assert unpack(path) == {"samples/a.flac": b"1"}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.deb", b"not ar"),
        ("a.deb", b"!<arch>\n"),
        ("a.deb", b"!<arch>\n" + b"x" * 60),
        ("a.deb", deb_bytes({"a": b"1"}).replace(b"data.tar.xz ", b"data.tar.zst")),
        ("a.tgz", b"not gzip"),
        ("a.tgz", tar_bytes({"a": bytes(range(256)) * 20}, "gz")[:-40]),
        ("a.tgz", b""),
    ],
)
def test_damaged_packages_are_named(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(AudioLDMError, match=rf"Cannot unpack {name}"):
        unpack(path)


@pytest.mark.parametrize("name", ["a.zip", "a.PK3"])
def test_zip_gives_wanted_members(name):
    data = zip_bytes({"sound/a.ogg": b"1", "../../b.ogg": b"2", "folder/": b""})
    assert everything(data, name) == {"sound/a.ogg": b"1", "../../b.ogg": b"2"}, "names are keys, never paths"
    assert dict(contents(io.BytesIO(data), name, lambda inner: inner.startswith("sound"))) == {
        "sound/a.ogg": b"1"
    }


def test_cat_gives_numbered_sounds_and_passes_over_others():
    data = cat_bytes([(b"one", RIFF), (b"no sound", b"MIDI" + b"x" * 20), (b"", RIFF + b"")])
    assert everything(data, "a.cat") == {"000.wav": RIFF, "002.wav": RIFF}


def test_groups_nest_packed_and_plain():
    tree = {"a.wav": b"1", "Inner.ocg": {"Deep.ocg": {"b.ogg": b"22"}, "c.txt": b""}}
    expected = {"a.wav": b"1", "Inner.ocg/Deep.ocg/b.ogg": b"22", "Inner.ocg/c.txt": b""}
    assert everything(group_bytes(tree), "a.ocg") == expected
    assert everything(packed_group(tree), "a.ocg") == expected


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.zip", b"no zip"),
        ("a.zip", zip_bytes({"a": bytes(range(256)) * 20})[:-30]),
        ("a.cat", b""),
        ("a.cat", struct.pack("<II", 0x7FFFFFF8, 1)),
        ("a.cat", struct.pack("<II", 8, 1)),
        ("a.cat", cat_bytes([(b"one", RIFF)])[:-12]),
        ("a.ocg", b"x" * 300),
        ("a.ocg", b""),
        ("a.ocg", group_bytes({"a.wav": b"123456"})[:-3]),
        ("a.ocg", b"\x1e\x8c" + b"x" * 20),
        ("a.ocg", packed_group({"a.wav": bytes(range(256))})[:-100]),
    ],
)
def test_damaged_containers_are_named(name, data):
    with pytest.raises(AudioLDMError, match=f"Cannot unpack {name}"):
        everything(data, name)


def test_nothing_grows_beyond_its_bound(monkeypatch):
    monkeypatch.setattr(containers, "UNPACKED_BYTES", 1000)
    with pytest.raises(AudioLDMError, match="more than 1000"):
        everything(packed_group({"a.wav": bytes(5000)}), "a.ocg")
    with pytest.raises(AudioLDMError, match="more than 10 bytes"):
        bounded(io.BytesIO(bytes(11)), "a", 10)
    monkeypatch.setattr(containers, "MEMBERS", 2)
    with pytest.raises(AudioLDMError, match="more than 2"):
        everything(zip_bytes({"a": b"", "b": b"", "c": b""}), "a.zip")


def test_groups_nested_too_deep_are_refused():
    tree = {"a.wav": b"1"}
    for _ in range(containers.DEPTH + 1):
        tree = {"x.ocg": tree}
    with pytest.raises(AudioLDMError, match="nested deeper"):
        everything(group_bytes(tree), "a.ocg")


def test_other_files_are_no_containers():
    assert not any(is_container(name) for name in ("a.ogg", "zip", "a.zip.txt"))
