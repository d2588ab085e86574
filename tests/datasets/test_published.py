"""Each published data set's reader on a miniature of the files that its authors give out, with real sound in it."""

import json

import numpy as np
import pytest
import soundfile
from sounds import save, sine

from audioldm.datasets.check import check
from audioldm.datasets.prepare import captioned, labelled
from audioldm.datasets.prepare.tables import Sounds, table
from audioldm.errors import AudioLDMError


def sound(path, hertz=440.0, seconds=0.5, rate=16000, channels=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = sine(seconds, hertz, rate)
    soundfile.write(path, np.stack([wave] * channels, axis=1), rate)
    return path


def sound_rows(rows, count, findings=None):
    """The rows, after the check that every command makes, by file name."""
    report = check(rows)
    assert report.counts() == (findings or {})
    assert len(report.rows) == count
    return {row.path.rsplit("/", 1)[-1]: row for row in report.rows}


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
    rows = sound_rows(captioned.audiocaps(audiocaps / "dataset", audiocaps / "audio"), 4, {"missing": 1})
    test, val = rows["103549.mp3"], rows["vfY_TJq7n_U_130000_140000.ogg"]
    assert test.split == "test" and test.captions == tuple(f"Caption number {i}" for i in range(5))
    assert val.split == "val" and set(val.captions) == {"Rustling occurs", "Ducks quack"}
    assert rows["r1nicOVtvkQ_130.wav"].captions == ("A woman talks nearby, as water pours",)
    assert {row.source for row in rows.values()} == {"audiocaps"}
    missing = captioned.clips(captioned.audiocaps(audiocaps / "dataset", audiocaps / "audio"))
    assert [(clip.video, clip.start, clip.seconds) for clip in missing] == [("gone0000000", 0.0, 10)]


def test_audiocaps_video_of_two_lists_is_in_the_later_split(audiocaps):
    with (audiocaps / "dataset/train.csv").open("a") as file:
        file.write("5,7fmOlUlwoNg,60,The same video elsewhere\n")
    sound(audiocaps / "audio/7fmOlUlwoNg_60.wav", 700)
    rows = captioned.audiocaps(audiocaps / "dataset", audiocaps / "audio")
    assert {row.split for row in rows if row.group == "youtube/7fmOlUlwoNg"} == {"test"}


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


def test_esc50_and_its_esc10(tmp_path):
    lines = "filename,fold,target,category,esc10,src_file,take\n"
    for name, fold, category, esc10 in (
        ("1-100032-A-0.wav", 1, "dog", True),
        ("4-119648-A-4.wav", 4, "frog", False),
        ("5-103415-A-2.wav", 5, "pig", False),
    ):
        lines += f"{name},{fold},0,{category},{esc10},{name.split('-')[1]},A\n"
        sound(tmp_path / "audio" / name, 300 + 100 * fold, rate=44100)
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta/esc50.csv").write_text(lines)
    rows = sound_rows(labelled.esc50(tmp_path), 3)
    assert [row.split for row in rows.values()] == ["train", "val", "test"]
    assert (
        rows["1-100032-A-0.wav"].captions[0] == "a dog barking"
        and rows["1-100032-A-0.wav"].licence == "CC-BY-3.0"
    )
    assert rows["4-119648-A-4.wav"].licence == "CC-BY-NC-3.0"
    assert [row.source for row in labelled.esc50(tmp_path, only_esc10=True)] == ["esc10"]
    assert len(labelled.ESC50) == 50


def test_urbansound8k(tmp_path):
    lines = "slice_file_name,fsID,start,end,salience,fold,classID,class\n"
    lines += "100032-3-0-0.wav,100032,0.0,0.317551,1,5,3,dog_bark\n"
    lines += "100263-2-0-117.wav,100263,58.5,62.5,2,10,2,children_playing\n"
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata/UrbanSound8K.csv").write_text(lines)
    soundfile.write(
        sound(tmp_path / "audio/fold5/100032-3-0-0.wav"), sine(0.32, 300, 44100), 44100, subtype="PCM_24"
    )
    sound(tmp_path / "audio/fold10/100263-2-0-117.wav", 500, rate=96000, channels=2)
    rows = sound_rows(labelled.urbansound8k(tmp_path), 2)
    assert rows["100032-3-0-0.wav"].captions[0] == "a dog barking"
    row = rows["100263-2-0-117.wav"]
    assert (row.captions, row.split, row.group) == (
        ("children playing in the background",),
        "test",
        "freesound/100263",
    )


def test_fsd50k(tmp_path):
    (tmp_path / "FSD50K.ground_truth").mkdir()
    (tmp_path / "FSD50K.ground_truth/dev.csv").write_text(
        'fname,labels,mids,split\n64760,"Electric_guitar,Guitar,Music","/m/02sgy,/m/0342h,/m/04rlf",train\n'
        "16399,Rain,/m/06mb1,val\n"
    )
    (tmp_path / "FSD50K.ground_truth/eval.csv").write_text(
        'fname,labels,mids\n37199,"Bark,Dog","/m/05tny_,/m/0bt9lr"\n'
    )
    (tmp_path / "FSD50K.metadata").mkdir()
    fact = {
        "title": "guitar.wav",
        "description": "x",
        "tags": ["a"],
        "license": "http://creativecommons.org/licenses/sampling+/1.0/",
        "uploader": "casualsamples",
    }
    (tmp_path / "FSD50K.metadata/dev_clips_info_FSD50K.json").write_text(json.dumps({"64760": fact}))
    for i, place in enumerate(("dev_audio/64760", "dev_audio/16399", "eval_audio/37199")):
        sound(tmp_path / f"FSD50K.{place}.wav", 300 + 100 * i, rate=44100)
    rows = sound_rows(labelled.fsd50k(tmp_path), 3)
    row = rows["64760.wav"]
    assert row.captions == ("the sound of electric guitar", "sounds of electric guitar, guitar and music")
    assert (row.split, row.licence, row.author) == ("train", "CC-Sampling+-1.0", "casualsamples")
    assert rows["16399.wav"].split == "val" and rows["37199.wav"].split == "test"


def test_audioset_labels_become_captions(tmp_path):
    (tmp_path / "class_labels_indices.csv").write_text(
        'index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/t/dd00003,"Male speech, man speaking"\n74,/m/0bt9lr,"Dog"\n'
    )
    remarks = "# Segments csv created Sun Mar  5 10:54:31 2017\n# num_ytids=2, num_segs=2\n"
    remarks += "# YTID, start_seconds, end_seconds, positive_labels\n"
    (tmp_path / "balanced_train_segments.csv").write_text(
        remarks
        + '--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/m/0bt9lr"\nnot_there_00, 0.000, 10.000, "/m/0bt9lr"\n'
    )
    (tmp_path / "eval_segments.csv").write_text(remarks + '--4gqARaEJE, 0.000, 10.000, "/t/dd00003"\n')
    sound(tmp_path / "audio/--PJHxphWEs_30.000_40.000.flac", 300)
    sound(tmp_path / "audio/Y--4gqARaEJE.wav", 400)
    rows = sound_rows(labelled.audioset(tmp_path, val=0), 2)
    assert rows["--PJHxphWEs_30.000_40.000.flac"].captions == (
        "speech and dog",
        "the sound of speech and dog",
    )
    assert rows["Y--4gqARaEJE.wav"].split == "test"
    (tmp_path / "eval_segments.csv").write_text(remarks + "broken\n")
    with pytest.raises(AudioLDMError, match=r"eval_segments\.csv:4"):
        labelled.audioset(tmp_path)


def test_a_wrong_folder_or_table_is_named(tmp_path):
    for reader in (
        captioned.audiocaps,
        captioned.clotho,
        captioned.wavcaps,
        captioned.macs,
        captioned.musiccaps,
    ):
        with pytest.raises(AudioLDMError, match=str(tmp_path)):
            reader(tmp_path)
    for reader in (labelled.esc50, labelled.urbansound8k, labelled.fsd50k, labelled.audioset):
        with pytest.raises(AudioLDMError, match=str(tmp_path)):
            reader(tmp_path)
    (tmp_path / "train.csv").write_text("id,caption\n1,x\n")
    with pytest.raises(AudioLDMError, match="youtube_id"):
        captioned.audiocaps(tmp_path)


def test_tables_and_names(tmp_path):
    (tmp_path / "a.csv").write_text("\ufeffname; x \nü;1\n", encoding="utf-8")
    assert table(tmp_path / "a.csv") == [{"name": "ü", "x": "1"}]
    save(tmp_path / "deep" / "b.wav")
    found = Sounds(tmp_path)
    assert found.find("none", "b") == tmp_path / "deep/b.wav"
    assert found.place("none.wav") == str(tmp_path / "none.wav")


@pytest.mark.parametrize(
    "name", ["audiocaps", "clotho", "wavcaps", "macs", "musiccaps", "esc50", "fsd50k", "audioset"]
)
def test_every_reader_is_a_command(command, name, tmp_path, capsys):
    assert command("data", "prepare", name, "--from", tmp_path / "nowhere", "-o", tmp_path / "m.jsonl") == 2
    assert "nowhere" in capsys.readouterr().err


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
