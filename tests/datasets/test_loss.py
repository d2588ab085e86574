"""Nothing of a folder or a table is lost in silence: it is read right, or a finding names it with its row."""

import json
import unicodedata
from pathlib import Path

import pytest
from sounds import save, sine

from audioldm.datasets.manifest import Finding
from audioldm.datasets.prepare.folder import folder, listed
from audioldm.errors import AudioLDMError


def read(place: Path) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    findings: list[Finding] = []
    rows = folder(place, findings=findings)
    return {str(Path(row.path).relative_to(place)): row.captions for row in rows}, [
        str(item) for item in findings
    ]


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    for number, name in enumerate("abcdefgh"):
        save(tmp_path / "in" / f"{name}.wav", sine(0.1, 200.0 + number))
    return tmp_path / "in"


def test_a_table_with_every_mistake_loses_the_wrong_rows_alone(sounds: Path):
    rows = [
        "file_name,split,start,caption",
        "a.wav,,,a dog, then a cat",
        "b.wav",
        "c.wav,,,nan",
        "d.wav,third,,x",
    ]
    rows += ["e.wav,,early,x", "../out.wav,,,x", "g.wav,,0.01,fine", ",,,x", 'h.wav,,,"x" y']
    (sounds / "metadata.csv").write_text("\r\n".join(rows))
    captions, findings = read(sounds)
    assert captions["a.wav"] == ("a dog, then a cat",) and captions["g.wav"] == ("fine",)
    assert not {"b.wav", "c.wav", "d.wav", "e.wav"} & set(captions), "its name is no caption either"
    assert any("metadata.csv:3 (a short row: 1 cells for 4 columns)" in text for text in findings)
    lines = sorted(int(text.split("metadata.csv:")[1].split()[0].strip("() ")) for text in findings)
    assert lines == [3, 4, 5, 6, 7, 9, 10]


def test_types_of_json_lines(sounds: Path):
    rows = [{"file_name": "a.wav", "caption": ["x", None, "nan"]}, {"file_name": "b.wav", "caption": 3}]
    rows += [{"file_name": "c.wav", "caption": None}, {"file_name": ["d.wav"], "caption": "x"}]
    rows += [
        {"file_name": "e.wav", "caption": "x\u2028y", "seconds": ""},
        {"file_name": "f.wav", "caption": {"a": 1}},
    ]
    (sounds / "metadata.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    captions, findings = read(sounds)
    assert captions["a.wav"] == ("x",) and captions["e.wav"] == ("x\u2028y",)
    assert len(findings) == 4 and all("metadata.jsonl:" in text for text in findings)


def test_other_endings_are_named_and_links_followed(sounds: Path, tmp_path: Path):
    save(tmp_path / "elsewhere" / "deep" / "far bell.wav")
    (sounds / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "circle").symlink_to(tmp_path / "elsewhere")
    for name in ("song.mid", "voice.m4a", "clip.webm", "notes.txt", ".hidden.xyz"):
        (sounds / name).write_bytes(b"x")
    captions, findings = read(sounds)
    assert captions["link/deep/far bell.wav"] == ("far bell",) and {"voice.m4a", "clip.webm"} <= set(captions)
    assert findings == [f"ending: {sounds}/song.mid (.mid is no ending of a sound that can be read)"]


def test_names_in_other_bytes_and_forms(tmp_path: Path):
    composed, decomposed = unicodedata.normalize("NFC", "é.wav"), unicodedata.normalize("NFD", "ü.wav")
    save(tmp_path / "in" / composed)
    save(tmp_path / "in" / decomposed, sine(0.1))
    name = "ä.wav".encode("cp1252").decode("utf-8", "surrogateescape")
    save(tmp_path / "in" / "deep" / "x.wav", sine(0.2)).rename(tmp_path / "in" / "deep" / name)
    names = [unicodedata.normalize("NFD", composed), unicodedata.normalize("NFC", decomposed), "deep\\ä.wav"]
    (tmp_path / "in" / "list.csv").write_text(
        "file_name,caption\n" + "".join(f"{name},x\n" for name in names)
    )
    rows = listed(tmp_path / "in" / "list.csv", findings=[])
    assert len(rows) == 3 and all(Path(row.path).is_file() for row in rows)


def test_a_cache_of_links_is_a_folder_of_sounds(tmp_path: Path):
    save(tmp_path / "blobs" / "0a1b", format="WAV")
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "a.wav").symlink_to("../blobs/0a1b")
    (tmp_path / "snapshot" / "metadata.csv").write_text("file_name,caption\na.wav,a bell\n")
    captions, findings = read(tmp_path / "snapshot")
    assert captions == {"a.wav": ("a bell",)} and not findings


def test_columns_that_are_not_read_are_named(sounds: Path):
    (sounds / "metadata.csv").write_text("file_name,description,mood\na.wav,a dog,sad\n")
    assert read(sounds)[1] == [
        f"column: {sounds}/metadata.csv (columns ['description', 'mood'] are not read)"
    ]
    (sounds / "metadata.csv").write_text("file_name,caption,caption\na.wav,a dog,a cat\n")
    with pytest.raises(AudioLDMError, match=r"\['caption'\] twice"):
        read(sounds)


def test_what_metadata_says_of_the_author_is_a_text(sounds: Path):
    rows = [{"file_name": "a.wav", "caption": "x", "author": ["me"]}, {"file_name": "b.wav", "caption": "x"}]
    (sounds / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    captions, findings = read(sounds)
    assert findings == [f"row: {sounds}/metadata.jsonl:1 (author: ['me'] is no text)"] and "b.wav" in captions


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_the_only_table_is_found_whatever_ends_its_lines(sounds: Path, end: str):
    (sounds / "things.csv").write_bytes(end.join(["file_name,caption", "a.wav,a dog, barking"]).encode())
    captions, findings = read(sounds)
    assert captions["a.wav"] == ("a dog, barking",) and not findings


def test_a_text_that_cannot_be_read_loses_its_sound_alone(sounds: Path):
    (sounds / "a.txt").write_bytes(b"\x81 dog")
    (sounds / "other.csv").write_bytes(b"\x81,\x8d\n")
    captions, findings = read(sounds)
    assert "a.wav" not in captions and "b.wav" in captions
    assert len(findings) == 2 and all("neither in UTF-8 nor in Windows-1252" in text for text in findings)


def test_a_sound_without_an_ending_is_named(sounds: Path):
    (sounds / "blob").write_bytes((sounds / "a.wav").read_bytes())
    (sounds / "README").write_text("nothing to hear")
    assert [text.split(" (")[0] for text in read(sounds)[1]] == [f"ending: {sounds}/blob"]
