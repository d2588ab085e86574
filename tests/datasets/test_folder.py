"""Any folder to rows: where captions come from, and what is refused."""

import json

import pytest
from sounds import bad_sounds, save, sine

from audioldm.datasets.check import check
from audioldm.datasets.prepare.folder import clean
from audioldm.datasets.prepare.folder import folder as rows
from audioldm.errors import AudioLDMError


def by_name(folder, **settings):
    return {row.path.removeprefix(f"{folder}/"): row for row in rows(folder, **settings)}


def test_names_and_text_files_give_captions(tmp_path):
    save(tmp_path / "03_DogBark-2.wav")
    save(tmp_path / "deep" / "x1.flac", subtype="PCM_16")
    (tmp_path / "deep" / "x1.txt").write_text("\ufeffrain on tin\n\n  falling rain \n", encoding="utf-8")
    save(tmp_path / "0001.wav")
    (tmp_path / "picture.png").write_bytes(b"no sound")
    made = by_name(tmp_path, licence="CC0-1.0", author="me")
    assert {name: row.captions for name, row in made.items()} == {
        "03_DogBark-2.wav": ("dog bark",),
        "deep/x1.flac": ("rain on tin", "falling rain"),
        "0001.wav": (),
    }
    assert {(row.licence, row.author, row.source) for row in made.values()} == {
        ("CC0-1.0", "me", tmp_path.name)
    }
    assert check(list(made.values())).counts() == {"caption": 1}


def test_metadata_csv_comes_first_and_other_files_still_count(tmp_path):
    for name in ("a.wav", "b.wav", "some horn.wav"):
        save(tmp_path / name)
    (tmp_path / "a.txt").write_text("not this")
    (tmp_path / "metadata.csv").write_text(
        'file_name,caption,split,licence,start,seconds\na.wav,"a bell, ringing",test,CC-BY-4.0,0.25,0.5\nb.wav,,,,,\n'
    )
    made = by_name(tmp_path, licence="CC0-1.0")
    row = made["a.wav"]
    assert (row.captions, row.split, row.licence, row.start, row.seconds) == (
        ("a bell, ringing",), "test", "CC-BY-4.0", 0.25, 0.5,
    )  # fmt: skip
    assert made["b.wav"].licence == "CC0-1.0"
    assert made["some horn.wav"].captions == ("some horn",)


@pytest.mark.filterwarnings("ignore::audioldm.errors.AudioLDMWarning")
def test_the_only_table_of_captions_counts_whatever_its_name_separator_and_encoding(tmp_path):
    save(tmp_path / "001.wav")
    save(tmp_path / "002.wav", sine(2.0))
    (tmp_path / "prices.csv").write_text("item,price\nmicrophone,100\n")
    (tmp_path / "Sounds.csv").write_bytes(
        "file; caption\n001.wav; \n002.wav; ein Gerät summt\n".encode("latin-1")
    )
    made = by_name(tmp_path)
    assert made["002.wav"].captions == ("ein Gerät summt",) and made["001.wav"].captions == ()
    (tmp_path / "again.tsv").write_text("path\tcaption\n001.wav\ta hum\n")
    with pytest.raises(AudioLDMError, match=r"both Sounds\.csv and again\.tsv"):
        rows(tmp_path)
    (tmp_path / "metadata.csv").write_text("file_name,caption\n001.wav,a beep\n")
    assert by_name(tmp_path)["001.wav"].captions == ("a beep",)


def test_metadata_jsonl_with_several_captions_and_parts(tmp_path):
    save(tmp_path / "a.wav", sine(3.0))
    lines = [
        {"path": "a.wav", "captions": ["one", "two"], "labels": ["x"], "start": 0, "seconds": 1},
        {"path": "a.wav", "text": "three", "start": 1, "seconds": 1},
        {"path": "gone.wav", "caption": "four"},
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    made = rows(tmp_path)
    assert [row.captions for row in made] == [("one", "two"), ("three",), ("four",)]
    assert made[0].split == made[1].split, "parts of one file share a split"
    assert made[0].group == made[1].group
    assert check(made).counts() == {"missing": 1}


def test_splits_follow_the_bytes_not_the_name(tmp_path):
    for number in range(40):
        # 16 bit: a float wav holds its time of writing, so that its bytes are never the same twice
        for name in ("one/a{} name.wav", "two/b{} other.wav"):
            save(tmp_path / name.format(number), sine(0.05, 100 + number), subtype="PCM_16")
    first, second = (
        [row.split for row in rows(tmp_path / name, val=0.3, test=0.2)] for name in ("one", "two")
    )
    assert sorted(first) == sorted(second)
    assert set(first) == {"train", "val", "test"}
    assert {row.split for row in rows(tmp_path / "one", val=0, test=0)} == {"train"}


def test_bad_files_are_found_by_the_check(tmp_path):
    made = bad_sounds(tmp_path)
    made["missing"].symlink_to(tmp_path / "gone.wav")
    report = check(rows(tmp_path))
    # sorted by name, copy.wav comes before the file that it copies: the first of two stays
    assert [row.path for row in report.rows] == [str(made["duplicate"])]
    assert report.counts() == {"corrupt": 2, "duplicate": 1, "missing": 1, "nan": 1, "silent": 1}


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ({"caption": "x"}, "names no file"),
        ({"file_name": "../out.wav", "caption": "x"}, "leads out"),
        ({"file_name": "/etc/passwd", "caption": "x"}, "leads out"),
        ({"file_name": "a.wav", "caption": 3}, "3"),
        ({"file_name": "a.wav", "caption": "x", "start": "early"}, "early"),
        ({"file_name": "a.wav", "caption": "x", "seconds": -1}, "-1"),
        ({"file_name": "a.wav", "caption": "x", "split": "third"}, "third"),
        ([], "no object"),
    ],
)
def test_wrong_metadata_is_named_by_line(tmp_path, line, word):
    save(tmp_path / "a.wav")
    (tmp_path / "metadata.jsonl").write_text(
        '{"file_name": "a.wav", "caption": "x"}\n' + json.dumps(line) + "\n"
    )
    with pytest.raises(AudioLDMError, match=word) as caught:
        rows(tmp_path)
    assert "metadata.jsonl:2" in str(caught.value)


def test_wrong_folders_are_refused(tmp_path):
    with pytest.raises(AudioLDMError, match="nowhere"):
        rows(tmp_path / "nowhere")
    with pytest.raises(AudioLDMError, match="no sounds"):
        rows(tmp_path)
    save(tmp_path / "deep" / "a.wav")
    with pytest.raises(AudioLDMError, match=r"test=0\.6"):
        rows(tmp_path, val=0.5, test=0.6)
    for name in ("metadata.csv", "metadata.jsonl"):
        (tmp_path / name).write_text("")
    with pytest.raises(AudioLDMError, match="both"):
        rows(tmp_path)


def test_clean_keeps_letters_of_any_language():
    assert clean("Geräusch_07") == "geräusch"
    assert clean("don't-stop") == "don't stop"
    assert clean("7-B") == ""
