"""Readers of captioned data sets, each on a miniature of the files that its authors give out, with real sound in it."""

import json

import pytest
from sounds import sound, sound_rows

from audioldm.datasets.prepare import captioned
from audioldm.errors import AudioLDMError


@pytest.fixture
def audiocaps(tmp_path):
    """The repository's dataset folder: three CSVs; the sounds elsewhere, in three of the namings in use."""
    head = "audiocap_id,youtube_id,start_time,caption\n"
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset/train.csv").write_text(
        head
        + '91139,r1nicOVtvkQ,130,"A woman talks nearby, as water pours"\n'
        + "58146,-Bu7YaslRW0,30,A gun cocking then firing\n"
        + "11542,gone0000000,0,A sound that YouTube has lost\n"
    )
    (tmp_path / "dataset/val.csv").write_text(
        head + "97151,vfY_TJq7n_U,130,Rustling occurs\n97150,vfY_TJq7n_U,130,Ducks quack\n"
    )
    (tmp_path / "dataset/test.csv").write_text(
        head + "".join(f"{103549 + i},7fmOlUlwoNg,0,Caption number {i}\n" for i in range(5))
    )
    sound(tmp_path / "audio/train/r1nicOVtvkQ_130.wav", 300)
    sound(tmp_path / "audio/train/Y-Bu7YaslRW0.flac", 400, rate=44100, channels=2)
    sound(tmp_path / "audio/val/vfY_TJq7n_U_130000_140000.ogg", 500)
    sound(tmp_path / "audio/test/103549.mp3", 600, rate=44100)
    return tmp_path


def test_audiocaps(audiocaps):
    rows = sound_rows(
        captioned.audiocaps(audiocaps / "dataset", audio=audiocaps / "audio"), 4, {"missing": 1}
    )
    test, val = rows["103549.mp3"], rows["vfY_TJq7n_U_130000_140000.ogg"]
    assert test.split == "test" and test.captions == tuple(f"Caption number {i}" for i in range(5))
    assert val.split == "val" and set(val.captions) == {"Rustling occurs", "Ducks quack"}
    assert rows["r1nicOVtvkQ_130.wav"].captions == ("A woman talks nearby, as water pours",)
    assert {row.source for row in rows.values()} == {"audiocaps"}
    missing = captioned.clips(captioned.audiocaps(audiocaps / "dataset", audio=audiocaps / "audio"))
    assert [(clip.video, clip.start, clip.seconds) for clip in missing] == [("gone0000000", 0.0, 10)]


def test_audiocaps_video_of_two_lists_is_in_the_later_split(audiocaps):
    with (audiocaps / "dataset/train.csv").open("a") as file:
        file.write("5,7fmOlUlwoNg,60,The same video elsewhere\n")
    sound(audiocaps / "audio/7fmOlUlwoNg_60.wav", 700)
    rows = captioned.audiocaps(audiocaps / "dataset", audio=audiocaps / "audio")
    assert {row.split for row in rows if row.group == "youtube/7fmOlUlwoNg"} == {"test"}


@pytest.mark.filterwarnings("ignore::audioldm.errors.AudioLDMWarning")
def test_clotho(tmp_path):
    """Zenodo 4783391, unpacked: captions and metadata beside a folder of each split; one table is in Latin-1."""
    for name, split, hertz in (
        ("development", "train", 300),
        ("validation", "val", 400),
        ("evaluation", "test", 500),
    ):
        files = [f"{split} Rain on a café.wav", f"{split} 2.wav"]
        head = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\n"
        (tmp_path / f"clotho_captions_{name}.csv").write_text(
            head + "".join(f'{file},"One, {name}.",Two.,Three.,Four.,Five.\n' for file in files),
            encoding="utf-8",
        )
        facts = "file_name,keywords,sound_id,sound_link,start_end_samples,manufacturer,license\n"
        urls = (
            "http://creativecommons.org/licenses/by/3.0/",
            "http://creativecommons.org/publicdomain/zero/1.0/",
        )
        facts += "".join(
            f'{file},rain;café,{hertz + i},https://freesound.org/x,"[0, 100]",someone,{url}\n'
            for i, (file, url) in enumerate(zip(files, urls, strict=True))
        )
        encoding = "latin-1" if name == "development" else "utf-8"
        (tmp_path / f"clotho_metadata_{name}.csv").write_text(facts, encoding=encoding)
        for i, file in enumerate(files):
            sound(tmp_path / "clotho_audio_files" / name / file, hertz + 50 * i, rate=44100)
    rows = sound_rows(captioned.clotho(tmp_path), 6)
    row = rows["val Rain on a café.wav"]
    assert row.split == "val" and len(row.captions) == 5 and row.captions[0] == "One, validation."
    assert (row.licence, row.author, row.labels, row.group) == (
        "CC-BY-3.0",
        "someone",
        ("rain", "café"),
        "freesound/400",
    )
    assert rows["test 2.wav"].licence == "CC0-1.0" and rows["test 2.wav"].split == "test"


def test_wavcaps(tmp_path):
    """json_files with four lists, FLACs named by id, and a blacklist."""
    lists = {
        "AudioSet_SL/as_final": [{"id": "Yb0RFKhbpFJA.wav", "caption": "Wind blows.", "duration": 10.0}],
        "BBC_Sound_Effects/bbc_final": [
            {"id": "NHU05093027", "caption": "Birds.", "description": "x", "duration": 2.0}
        ],
        "FreeSound/fsd_final": [
            {
                "id": "180913",
                "file_name": "Rain.wav",
                "caption": "Rain.",
                "href": "/people/a/sounds/180913",
                "author": "ann",
            },
            {"id": "555", "caption": "In Clotho's test set."},
        ],
        "SoundBible/sb_final": [{"id": "2219", "title": "Bell", "caption": "A bell rings."}],
    }
    for name, items in lists.items():
        path = tmp_path / "json_files" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"num_captions_per_audio": 1, "data": items}))
    for i, stem in enumerate(("Yb0RFKhbpFJA", "NHU05093027", "180913", "555", "2219")):
        sound(tmp_path / "audio" / f"{stem}.flac", 300 + 50 * i, rate=32000)
    banned = tmp_path / "json_files/blacklist/blacklist_exclude_test_ac.json"
    banned.parent.mkdir()
    banned.write_text(json.dumps({"FreeSound": ["555"], "AudioSet": []}))
    rows = sound_rows(captioned.wavcaps(tmp_path, exclude=[banned], val=0), 4)
    assert "555.flac" not in rows
    assert rows["Yb0RFKhbpFJA.flac"].group == "youtube/b0RFKhbpFJA"
    assert rows["180913.flac"].author == "ann" and rows["180913.flac"].source == "wavcaps/FreeSound"
    with pytest.raises(AudioLDMError, match="blacklist"):
        captioned.wavcaps(tmp_path, exclude=[tmp_path / "none.json"])


def test_macs(tmp_path):
    note = "  - identifier: {}\n    sentence: {}\n    tags:\n    - birds_singing\n    - adults_talking\n"
    text = "files:\n"
    for i, name in enumerate(("airport-oslo-0-0-a.wav", "airport-oslo-0-1-a.wav", "park-paris-30-2-a.wav")):
        text += (
            f"- filename: {name}\n  annotations:\n"
            + note.format(61, f"Sentence {i}")
            + note.format(76, "People talk")
        )
        sound(tmp_path / "audio" / name, 300 + 100 * i, rate=48000, channels=2)
    (tmp_path / "MACS.yaml").write_text(text)
    rows = sound_rows(captioned.macs(tmp_path), 3)
    row = rows["airport-oslo-0-1-a.wav"]
    assert row.captions == ("Sentence 1", "People talk") and row.labels == ("birds_singing", "adults_talking")
    assert row.split == rows["airport-oslo-0-0-a.wav"].split, "a place's recordings share a split"


def test_musiccaps(tmp_path):
    (tmp_path / "musiccaps-public.csv").write_text(
        "ytid,start_s,end_s,audioset_positive_labels,aspect_list,caption,author_id,is_balanced_subset,"
        "is_audioset_eval\n"
        '-0Gj8-vB1q4,30,40,"/m/0140xf,/m/02cjck","[\'low quality\', \'ballad\']","A ballad, soft.",4,False,True\n'
        "-0SdAVK79lg,30,40,/m/0155w,\"['guitar song']\",A guitar.,0,False,False\n"
    )
    sound(tmp_path / "audio/-0Gj8-vB1q4.wav", 300)
    sound(tmp_path / "audio/Y-0SdAVK79lg_30.000_40.000.wav", 400)
    rows = sound_rows(captioned.musiccaps(tmp_path, val=0), 2)
    row = rows["-0Gj8-vB1q4.wav"]
    assert row.split == "test" and row.labels == ("low quality", "ballad")
    assert rows["Y-0SdAVK79lg_30.000_40.000.wav"].split == "train"


def test_audiocaps_command_names_what_is_missing(command, audiocaps, capsys):
    words = [
        "--from",
        audiocaps / "dataset",
        "--audio",
        audiocaps / "audio",
        "-o",
        audiocaps / "m.jsonl",
        "--json",
    ]
    assert command("data", "prepare", "audiocaps", *words) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["splits"] == {"train": 2, "val": 1, "test": 1}
    assert "missing: " in shown.err and "gone0000000_0" in shown.err
