"""ESC-10's folders to rows: true captions, folds as splits, no recording in two splits."""

import itertools
import os
from collections import Counter
from pathlib import Path

import pytest
from sounds import save, sine

from audioldm.datasets.check import check
from audioldm.datasets.prepare.labelled import ESC10 as CAPTIONS
from audioldm.datasets.prepare.labelled import esc10 as rows
from audioldm.errors import AudioLDMError

CREDITS = """**001 - Dog bark**:
- **[1-100-A.wav](https://example.org/a)**: clip derived from [a (b).wav](http://example.org/1) by *some one* ([CC0](x))
"""


@pytest.fixture
def folder(tmp_path):
    """Five folds of two classes with two recordings each, the first one in two takes."""
    hertz = itertools.count(200, 10)
    for number, name in (("001", "Dog bark"), ("002", "Rain")):
        for fold in range(1, 6):
            for clip, take in ((100, "A"), (100, "B"), (200, "A")):
                save(
                    tmp_path / f"{number} - {name}" / f"{fold}-{fold}{clip}-{take}.wav",
                    sine(0.1, next(hertz)),
                )
    (tmp_path / "001 - Dog bark" / "1-1100-A.wav").rename(tmp_path / "001 - Dog bark" / "1-100-A.wav")
    (tmp_path / "001 - Dog bark" / "notes.txt").write_text("not a sound")
    (tmp_path / "LICENSE-and-attribution.md").write_text(CREDITS)
    return tmp_path


def test_rows_say_what_the_folder_says(folder):
    made = rows(folder, test_fold=5, val_fold=4)
    assert len(made) == 30
    assert Counter(row.split for row in made) == {"train": 18, "val": 6, "test": 6}
    assert all(row.split == {5: "test", 4: "val"}.get(row.fold, "train") for row in made)
    assert all(row.licence == "CC-BY-3.0" and row.source == "esc10" for row in made)
    assert {row.labels for row in made} == {("dog bark",), ("rain",)}
    dog = next(row for row in made if row.path.endswith("1-100-A.wav"))
    assert dog.captions == CAPTIONS["Dog bark"]
    assert dog.author == "some one (Freesound), ESC-10 by K. J. Piczak"
    assert next(row for row in made if row.labels == ("rain",)).author == "ESC-10 by K. J. Piczak"
    report = check(made)
    assert set(report.counts()) <= {"clipped"}, (
        "some recordings reached their microphone's limit; nothing else"
    )
    assert len(report.rows) == len(made), "a clipped recording is told of and stays"


def test_takes_of_one_recording_share_a_split(folder):
    made = rows(folder, test_fold=5, val=0.5)
    splits = {}
    for row in made:
        splits.setdefault(row.group, set()).add(row.split)
    assert all(len(found) == 1 for found in splits.values())
    assert {row.split for row in made if row.fold < 5} == {"train", "val"}


def test_captions_are_several_distinct_and_belong_to_one_class():
    assert len(CAPTIONS) == 10
    assert all(
        6 <= len(phrases) <= 8 == len(set(phrases)) + 8 - len(phrases) for phrases in CAPTIONS.values()
    )
    every = [phrase for phrases in CAPTIONS.values() for phrase in phrases]
    assert len(set(every)) == len(every)
    assert all(phrase == phrase.strip().lower() for phrase in every)


def test_a_folder_without_esc10_is_refused(tmp_path):
    with pytest.raises(AudioLDMError, match="no ESC-10"):
        rows(tmp_path)
    with pytest.raises(AudioLDMError, match="nowhere"):
        rows(tmp_path / "nowhere")


@pytest.mark.esc10
@pytest.mark.skipif("AUDIOLDM_ESC10" not in os.environ, reason="set AUDIOLDM_ESC10 to ESC-10's folder")
def test_the_real_esc10():
    made = rows(Path(os.environ["AUDIOLDM_ESC10"]))
    assert set(Counter(row.labels for row in made).values()) <= {32, 40}, "8 clips a fold in 4 or 5 folds"
    assert len({row.labels for row in made}) == 10
    assert all("Freesound" in row.author for row in made)
    report = check(made)
    assert set(report.counts()) <= {"clipped"}, (
        "some recordings reached their microphone's limit; nothing else"
    )
    assert len(report.rows) == len(made), "a clipped recording is told of and stays"
