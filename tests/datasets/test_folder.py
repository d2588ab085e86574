"""Any folder to rows: where captions come from, and that nothing is lost in silence: it is read right, or named."""

import json
import os
import unicodedata
from pathlib import Path

import pytest
from sounds import bad_sounds, save, sine

from audioldm.datasets.check import check
from audioldm.datasets.manifest import Finding, Row
from audioldm.datasets.prepare.folder import clean, folder, listed
from audioldm.errors import AudioLDMError


def by_name(place: Path, **settings) -> dict[str, Row]:
    return {str(Path(row.path).relative_to(place)): row for row in folder(place, **settings)}


def read(place: Path) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    findings: list[Finding] = []
    rows = by_name(place, findings=findings)
    return {name: row.captions for name, row in rows.items()}, [str(item) for item in findings]


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    for number, name in enumerate("abcdefgh"):
        save(tmp_path / "in" / f"{name}.wav", sine(0.1, 200.0 + number))
    return tmp_path / "in"


def test_names_and_text_files_give_captions(tmp_path: Path):
    for name in ("03_DogBark-2.wav", "deep/x1.wav", "0001.wav", "A.WAV", "bell.wav"):
        save(tmp_path / name)
    (tmp_path / "deep" / "x1.txt").write_text("\ufeffrain on tin\n\n  falling rain \n", encoding="utf-8")
    (tmp_path / "A.TXT").write_text("in capitals")
    (tmp_path / "bell.wav.txt").write_text("a big bell")
    (tmp_path / "picture.png").write_bytes(b"no sound")
    made = by_name(tmp_path, licence="CC0-1.0", author="me")
    assert {name: row.captions for name, row in made.items()} == {
        "03_DogBark-2.wav": ("dog bark",),
        "deep/x1.wav": ("rain on tin", "falling rain"),
        "0001.wav": (),
        "A.WAV": ("in capitals",),
        "bell.wav": ("a big bell",),
    }
    assert {(row.licence, row.author, row.source) for row in made.values()} == {
        ("CC0-1.0", "me", tmp_path.name)
    }


def test_clean_keeps_letters_of_any_language():
    assert (clean("Geräusch_07"), clean("don't-stop"), clean("7-B")) == ("geräusch", "don't stop", "")


def test_metadata_csv_comes_first_and_other_files_still_count(tmp_path: Path):
    for name in ("a.wav", "b.wav", "some horn.wav"):
        save(tmp_path / name)
    (tmp_path / "a.txt").write_text("not this")
    rows = 'File Name,Caption,split,licence,start,seconds\na.wav,"a bell, ringing",Test,CC-BY-4.0,0.25,0.5\n'
    (tmp_path / "metadata.csv").write_text(f"{rows}b.wav,,,,,\n")
    made = by_name(tmp_path, licence="CC0-1.0")
    row = made["a.wav"]
    assert (row.captions, row.split, row.licence, row.start, row.seconds) == (
        ("a bell, ringing",), "test", "CC-BY-4.0", 0.25, 0.5,
    )  # fmt: skip
    assert made["b.wav"].licence == "CC0-1.0" and made["some horn.wav"].captions == ("some horn",)


@pytest.mark.filterwarnings("ignore::audioldm.errors.AudioLDMWarning")
def test_the_only_table_of_captions_counts_whatever_its_name_separator_and_encoding(tmp_path: Path):
    save(tmp_path / "001.wav")
    save(tmp_path / "002.wav", sine(2.0))
    (tmp_path / "prices.csv").write_text("item,price\nmicrophone,100\n")
    text = "file; caption\n001.wav; \n002.wav; ein Gerät summt\n"
    (tmp_path / "Sounds.csv").write_bytes(text.encode("latin-1"))
    made = by_name(tmp_path)
    assert made["002.wav"].captions == ("ein Gerät summt",) and made["001.wav"].captions == ()
    (tmp_path / "again.jsonl").write_text('{"path": "001.wav", "caption": "a hum"}\n')
    with pytest.raises(AudioLDMError, match=r"both Sounds\.csv and again\.jsonl"):
        folder(tmp_path)
    (tmp_path / "metadata.csv").write_text("file_name,caption\n001.wav,a beep\n")
    assert by_name(tmp_path)["001.wav"].captions == ("a beep",)


def test_metadata_jsonl_with_several_captions_and_parts(tmp_path: Path):
    save(tmp_path / "a.wav", sine(3.0))
    lines = [
        {"path": "a.wav", "captions": ["one", "two"], "labels": ["x"], "start": 0, "seconds": 1},
        {"path": "a.wav", "text": "three", "start": 1, "seconds": 1},
        {"path": "a.wav", "text": "four", "start": 1, "seconds": 1},
        {"path": "gone.wav", "caption": "five"},
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    made = folder(tmp_path)
    assert [row.captions for row in made] == [("one", "two"), ("three", "four"), ("five",)]
    assert made[0].split == made[1].split and made[0].group == made[1].group, (
        "parts of one file share a split"
    )
    assert check(made).counts() == {"missing": 1}


def test_splits_follow_the_bytes_not_the_name(tmp_path: Path):
    for number in range(25):
        # 16 bit: a float wav holds its time of writing, so that its bytes are never the same twice
        for name in ("one/a{} name.wav", "two/b{} other.wav"):
            save(tmp_path / name.format(number), sine(0.05, 100 + number), subtype="PCM_16")
    one, two = ([row.split for row in folder(tmp_path / n, val=0.3, test=0.2)] for n in ("one", "two"))
    assert sorted(one) == sorted(two) and set(one) == {"train", "val", "test"}
    assert {row.split for row in folder(tmp_path / "one", val=0, test=0)} == {"train"}


def test_bad_files_are_found_by_the_check(tmp_path: Path):
    made = bad_sounds(tmp_path)
    made["missing"].symlink_to(tmp_path / "gone.wav")
    report = check(folder(tmp_path))
    # sorted by name, copy.wav comes before the file that it copies: the first of two stays
    assert [row.path for row in report.rows] == [str(made["duplicate"])]
    assert report.counts() == {"corrupt": 2, "duplicate": 1, "missing": 1, "nan": 1, "silent": 1}


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ('{"caption": "x"}', "names no file"),
        ('{"file_name": "../out.wav", "caption": "x"}', "leads out"),
        ('{"file_name": "/etc/passwd", "caption": "x"}', "leads out"),
        ('{"file_name": ["a.wav"], "caption": "x"}', "names no file"),
        ('{"file_name": "a.wav", "caption": 3}', "3 is no text"),
        ('{"file_name": "a.wav", "caption": null}', "says nothing"),
        ('{"file_name": "a.wav", "caption": "?"}', "says nothing"),
        ('{"file_name": "a.wav", "caption": "x", "caption": "y"}', "'caption' comes twice"),
        ('{"file_name": "a.wav", "caption": "x", "start": "early"}', "early"),
        ('{"file_name": "a.wav", "caption": "x", "seconds": -1}', "-1"),
        ('{"file_name": "a.wav", "caption": "x", "split": "third"}', "third"),
        ('{"file_name": "a.wav", "caption": "x", "author": ["me"]}', r"author: \['me'\] is no text"),
        ("[]", "no object"),
    ],
)
def test_wrong_metadata_is_named_by_line_and_loses_that_row_alone(sounds: Path, line: str, word: str):
    (sounds / "metadata.jsonl").write_text(
        f'{{"file_name": "b.wav", "caption": "x\u2028y"}}\n{line}\n', "utf-8"
    )
    with pytest.raises(AudioLDMError, match=word) as caught:
        folder(sounds)
    assert "metadata.jsonl:2" in str(caught.value)
    captions, findings = read(sounds)
    assert captions["b.wav"] == ("x\u2028y",) and len(findings) == 1 and "metadata.jsonl:2" in findings[0]


def test_a_table_with_every_mistake_loses_the_wrong_rows_alone(sounds: Path):
    rows = [
        "file_name,split,start,caption,",
        "a.wav,,,a dog, then a cat,",
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


def test_wrong_folders_are_refused(tmp_path: Path):
    with pytest.raises(AudioLDMError, match="nowhere"):
        folder(tmp_path / "nowhere")
    with pytest.raises(AudioLDMError, match="no sounds"):
        folder(tmp_path)
    save(tmp_path / "deep" / "a.wav")
    for name in ("metadata.csv", "metadata.jsonl"):
        (tmp_path / name).write_text("")
    with pytest.raises(AudioLDMError, match="both"):
        folder(tmp_path)


def test_other_endings_are_named_and_links_followed(sounds: Path, tmp_path: Path):
    save(tmp_path / "elsewhere" / "deep" / "far bell.wav")
    (sounds / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "circle").symlink_to(tmp_path / "elsewhere")
    for name in ("song.mid", "voice.m4a", "clip.webm", "notes.txt", ".hidden.xyz", "metadata.json", "README"):
        (sounds / name).write_bytes(b"x")
    (sounds / "blob").write_bytes((sounds / "a.wav").read_bytes())
    captions, findings = read(sounds)
    assert captions["link/deep/far bell.wav"] == ("far bell",) and {"voice.m4a", "clip.webm"} <= set(captions)
    assert [text.split(" (")[0].rpartition("/")[2] for text in findings] == [
        "blob",
        "metadata.json",
        "song.mid",
    ]


def test_names_in_other_bytes_and_forms(tmp_path: Path):
    composed, decomposed = unicodedata.normalize("NFC", "é.wav"), unicodedata.normalize("NFD", "ü.wav")
    save(tmp_path / "in" / composed)
    save(tmp_path / "in" / decomposed, sine(0.1))
    name = "ä.wav".encode("cp1252").decode("utf-8", "surrogateescape")
    save(tmp_path / "in" / "deep" / "x.wav", sine(0.2)).rename(tmp_path / "in" / "deep" / name)
    names = [unicodedata.normalize("NFD", composed), unicodedata.normalize("NFC", decomposed), "deep\\ä.wav"]
    text = "file_name,caption\n" + "".join(f"{name},x\n" for name in names)
    (tmp_path / "in" / "list.csv").write_text(text)
    rows = listed(tmp_path / "in" / "list.csv", findings=[])
    assert len(rows) == 3 and all(Path(row.path).is_file() for row in rows)


def test_what_is_no_file_or_can_be_none_ends_no_run(sounds: Path):
    os.mkfifo(sounds / "pipe.wav")
    (sounds / "huge.wav").write_bytes(b"RIFF")
    os.truncate(sounds / "huge.wav", 2**33)
    (sounds / "metadata.csv").write_text(f"file_name,caption\n{'n' * 300}.wav,x\nlink/x.wav,x\n")
    (sounds / "a.txt").write_bytes(b"\x81 dog")
    findings: list[Finding] = []
    counts = check(folder(sounds, findings=findings)).counts()
    assert counts == {"missing": 3, "failed": 1, "caption": 7}
    assert len(findings) == 1 and "neither in UTF-8 nor in Windows-1252" in findings[0].detail


def test_a_cache_of_links_is_a_folder_of_sounds(tmp_path: Path):
    save(tmp_path / "blobs" / "0a1b", format="WAV")
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "a.wav").symlink_to("../blobs/0a1b")
    (tmp_path / "snapshot" / "metadata.csv").write_text("file_name,caption\na.wav,a bell\n")
    assert read(tmp_path / "snapshot") == ({"a.wav": ("a bell",)}, [])


def test_columns_that_are_not_read_are_named(sounds: Path):
    (sounds / "metadata.csv").write_text("file_name,description,mood\na.wav,a dog,sad\n")
    assert read(sounds)[1] == [
        f"column: {sounds}/metadata.csv (columns ['description', 'mood'] are not read)"
    ]
    (sounds / "metadata.csv").write_text("file_name,caption,caption\na.wav,a dog,a cat\n")
    with pytest.raises(AudioLDMError, match=r"\['caption'\] twice"):
        read(sounds)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_the_only_table_is_found_whatever_ends_its_lines(sounds: Path, end: str):
    (sounds / "things.csv").write_bytes(end.join(["file_name,caption", "a.wav,a dog, barking"]).encode())
    captions, findings = read(sounds)
    assert captions["a.wav"] == ("a dog, barking",) and not findings
