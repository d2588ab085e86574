"""Readers of published data sets, each on a miniature of the files that its authors give out, with real sound in it."""

import itertools
import json
import os
from collections import Counter
from pathlib import Path

import pytest
from sounds import save, sine, sound_rows

from audioldm.datasets.check import check
from audioldm.datasets.prepare import published
from audioldm.datasets.prepare.shared import Sounds, table
from audioldm.errors import AudioLDMError

HERTZ = itertools.count(200, 7)
READERS = (
    published.audiocaps, published.clotho, published.wavcaps, published.macs, published.musiccaps, published.esc10,
    published.esc50, published.urbansound8k, published.fsd50k, published.audioset,
)  # fmt: skip


def lay(folder: Path, **files: str | bytes) -> None:
    """Texts and sounds below a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def sounds(folder: Path, *names: str) -> None:
    for name in names:
        kind = {"mp3": "MPEG_LAYER_III", "ogg": "VORBIS"}.get(name.rpartition(".")[2], "PCM_16")
        save(folder / name, sine(0.5, next(HERTZ)), subtype=kind)


@pytest.fixture
def audiocaps(tmp_path: Path) -> Path:
    """The repository's dataset folder: three CSVs; the sounds elsewhere, in four of the namings in use."""
    head = "audiocap_id,youtube_id,start_time,caption\n"
    train = (
        '91139,r1nicOVtvkQ,130,"A woman talks nearby, as water pours"\n58146,-Bu7YaslRW0,30,A gun cocking\n'
    )
    train += "11542,gone0000000,0,A sound that YouTube has lost\n5,7fmOlUlwoNg,60,The same video elsewhere\n"
    val = "97151,vfY_TJq7n_U,130,Rustling occurs\n97150,vfY_TJq7n_U,130,Ducks quack\n"
    test = "".join(f"{103549 + i},7fmOlUlwoNg,0,Caption number {i}\n" for i in range(5))
    texts = {"train": train, "val": val, "test": test}
    lay(tmp_path / "dataset", **{f"{split}.csv": head + text for split, text in texts.items()})
    names = ("train/r1nicOVtvkQ_130.wav", "train/Y-Bu7YaslRW0.flac", "val/vfY_TJq7n_U_130000_140000.ogg")
    sounds(tmp_path / "audio", *names, "test/103549.mp3", "7fmOlUlwoNg_60.wav")
    return tmp_path


def test_audiocaps(audiocaps: Path, command, capsys):
    listed = published.audiocaps(audiocaps / "dataset", audio=audiocaps / "audio")
    rows = sound_rows(listed, 5, {"missing": 1})
    test, val = rows["103549.mp3"], rows["vfY_TJq7n_U_130000_140000.ogg"]
    assert test.split == "test" and test.captions == tuple(f"Caption number {i}" for i in range(5))
    assert val.split == "val" and set(val.captions) == {"Rustling occurs", "Ducks quack"}
    assert rows["r1nicOVtvkQ_130.wav"].captions == ("A woman talks nearby, as water pours",)
    assert rows["7fmOlUlwoNg_60.wav"].split == "test", "a video of two lists is in the later split"
    missing = [Path(row.path).name for row in listed if not Path(row.path).is_file()]
    assert missing == ["gone0000000_0"], "the name by which it is fetched"
    words = ("--from", audiocaps / "dataset", "--audio", audiocaps / "audio", "-o", audiocaps / "m.jsonl")
    assert command("data", "prepare", "audiocaps", *words, "--json") == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["splits"] == {"train": 2, "val": 1, "test": 2}
    assert "missing: " in shown.err and "gone0000000_0" in shown.err


@pytest.mark.filterwarnings("ignore::audioldm.errors.AudioLDMWarning")
def test_clotho(tmp_path: Path):
    """Zenodo 4783391, unpacked: captions and metadata beside a folder of each split; one table is in Latin-1."""
    for name, split, number in (
        ("development", "train", 3),
        ("validation", "val", 4),
        ("evaluation", "test", 5),
    ):
        file, other = f"{split} Rain on a café.wav", f"{split} 2.wav"
        captions = "".join(f'{each},"One, {name}.",Two.,Three.,Four.,Five.\n' for each in (file, other))
        lay(tmp_path, **{f"clotho_captions_{name}.csv": "file_name," + ",".join(
            f"caption_{i}" for i in range(1, 6)) + "\n" + captions})  # fmt: skip
        facts = "file_name,keywords,sound_id,sound_link,start_end_samples,manufacturer,license\n"
        for each, kind in ((file, "licenses/by/3.0/"), (other, "publicdomain/zero/1.0/")):
            facts += f'{each},rain;café,{number},x,"[0, 100]",someone,http://creativecommons.org/{kind}\n'
        encoding = "latin-1" if name == "development" else "utf-8"
        lay(tmp_path, **{f"clotho_metadata_{name}.csv": facts.encode(encoding)})
        sounds(tmp_path / "clotho_audio_files" / name, file, other)
    rows = sound_rows(published.clotho(tmp_path), 6)
    row = rows["val Rain on a café.wav"]
    assert row.split == "val" and len(row.captions) == 5 and row.captions[0] == "One, validation."
    assert (row.licence, row.author, row.labels) == ("CC-BY-3.0", "someone", ("rain", "café"))
    assert rows["test 2.wav"].licence == "CC0-1.0" and rows["test 2.wav"].split == "test"
    assert row.group == "freesound/4" and rows["train Rain on a café.wav"].labels == ("rain", "café")


def test_wavcaps(tmp_path: Path):
    """json_files with four lists, FLACs named by id, and a blacklist."""
    lists = {
        "AudioSet_SL/as": [{"id": "Yb0RFKhbpFJA.wav", "caption": "Wind blows.", "duration": 10.0}],
        "BBC_Sound_Effects/bbc": [{"id": "NHU05093027", "caption": "Birds.", "description": "x"}],
        "FreeSound/fsd": [
            {"id": "180913", "caption": "Rain.", "href": "/people/a/sounds/180913", "author": "ann"},
            {"id": "555", "caption": "In Clotho's test set."},
        ],
        "SoundBible/sb": [{"id": "2219", "title": "Bell", "caption": "A bell rings."}],
    }
    lay(
        tmp_path,
        **{f"json_files/{name}_final.json": json.dumps({"data": items}) for name, items in lists.items()},
    )
    sounds(
        tmp_path / "audio",
        *(f"{stem}.flac" for stem in ("Yb0RFKhbpFJA", "NHU05093027", "180913", "555", "2219")),
    )
    lay(tmp_path, banned=json.dumps({"FreeSound": ["555"], "AudioSet": []}))
    rows = sound_rows(published.wavcaps(tmp_path, exclude=[tmp_path / "banned"], val=0), 4)
    assert "555.flac" not in rows and rows["Yb0RFKhbpFJA.flac"].group == "youtube/b0RFKhbpFJA"
    assert rows["180913.flac"].author == "ann" and rows["180913.flac"].source == "wavcaps/FreeSound"
    with pytest.raises(AudioLDMError, match=r"none\.json cannot be read"):
        published.wavcaps(tmp_path, exclude=[tmp_path / "none.json"])


def test_macs(tmp_path: Path):
    note, text = (
        "  - identifier: {}\n    sentence: {}\n    tags:\n    - birds_singing\n    - adults\n",
        "files:\n",
    )
    names = ("airport-oslo-0-0-a.wav", "airport-oslo-0-1-a.wav", "park-paris-30-2-a.wav")
    for i, name in enumerate(names):
        text += f"- filename: {name}\n  annotations:\n{note.format(61, f'Sentence {i}')}{note.format(76, 'People')}"
    lay(tmp_path, **{"MACS.yaml": text})
    sounds(tmp_path / "audio", *names)
    rows = sound_rows(published.macs(tmp_path), 3)
    row = rows["airport-oslo-0-1-a.wav"]
    assert row.captions == ("Sentence 1", "People") and row.labels == ("birds_singing", "adults")
    assert row.split == rows["airport-oslo-0-0-a.wav"].split, "a place's recordings share a split"


def test_musiccaps(tmp_path: Path):
    head = "ytid,start_s,end_s,audioset_positive_labels,aspect_list,caption,author_id,is_balanced_subset,"
    text = f"{head}is_audioset_eval\n-0Gj8-vB1q4,30,40,\"/m/0140xf\",\"['low quality', 'ballad']\","
    text += '"A ballad, soft.",4,False,True\n-0SdAVK79lg,30,40,/m/0155w,"[\'guitar song\']",A guitar.,0,False,False\n'
    lay(tmp_path, **{"musiccaps-public.csv": text})
    sounds(tmp_path / "audio", "-0Gj8-vB1q4.wav", "Y-0SdAVK79lg_30.000_40.000.wav")
    rows = sound_rows(published.musiccaps(tmp_path, val=0), 2)
    row = rows["-0Gj8-vB1q4.wav"]
    assert row.split == "test" and row.labels == ("low quality", "ballad")
    assert rows["Y-0SdAVK79lg_30.000_40.000.wav"].split == "train"


@pytest.fixture
def esc10(tmp_path: Path) -> Path:
    """Five folds of two classes with two recordings each, the first one in two takes."""
    for name, fold in itertools.product(("001 - Dog bark", "002 - Rain"), range(1, 6)):
        for clip in ("100-A", "100-B", "200-A"):
            save(tmp_path / name / f"{fold}-{fold}{clip}.wav", sine(0.1, next(HERTZ)))
    dog = tmp_path / "001 - Dog bark"
    (dog / "1-1100-A.wav").rename(dog / "1-100-A.wav")
    lay(dog, **{"notes.txt": "not a sound"})
    credit = "- **[1-100-A.wav](https://x.org/a)**: clip derived from [a (b).wav](http://x.org/1) by *some one* (x)"
    lay(tmp_path, **{"LICENSE-and-attribution.md": f"**001 - Dog bark**:\n{credit}\n"})
    return tmp_path


def test_esc10(esc10: Path):
    made = published.esc10(esc10, test_fold=5, val_fold=4)
    assert Counter(row.split for row in made) == {"train": 18, "val": 6, "test": 6}
    assert all(row.split == {5: "test", 4: "val"}.get(row.fold, "train") for row in made)
    assert all(row.licence == "CC-BY-3.0" and row.source == "esc10" for row in made)
    assert {row.labels for row in made} == {("dog bark",), ("rain",)}
    dog = next(row for row in made if row.path.endswith("1-100-A.wav"))
    assert dog.captions == published.ESC10["Dog bark"]
    assert dog.author == "some one (Freesound), ESC-10 by K. J. Piczak"
    made, splits = published.esc10(esc10, test_fold=5, val=0.5), dict[str, set[str]]()
    for row in made:
        splits.setdefault(row.group, set()).add(row.split)
    assert all(len(each) == 1 for each in splits.values()), "takes of one recording share a split"
    assert {row.split for row in made if row.fold < 5} == {"train", "val"}


def test_captions_of_classes_are_several_distinct_and_belong_to_one_class():
    captions = published.ESC10.values()
    every = [phrase for phrases in captions for phrase in phrases]
    assert len(captions) == 10 and len(published.PHRASES["esc50"]) == 50
    assert all(6 <= len(phrases) <= 8 for phrases in captions)
    assert len(set(every)) == len(every) and all(phrase == phrase.strip().lower() for phrase in every)


@pytest.mark.esc10
@pytest.mark.skipif("AUDIOLDM_ESC10" not in os.environ, reason="set AUDIOLDM_ESC10 to ESC-10's folder")
def test_the_real_esc10():
    made = published.esc10(Path(os.environ["AUDIOLDM_ESC10"]))
    assert set(Counter(row.labels for row in made).values()) <= {32, 40}, "8 clips a fold in 4 or 5 folds"
    assert len({row.labels for row in made}) == 10 and all("Freesound" in row.author for row in made)
    report = check(made)
    assert set(report.counts()) <= {"clipped"} and len(report.rows) == len(made), "clipped recordings stay"


def test_esc50(tmp_path: Path):
    lines = "filename,fold,target,category,esc10,src_file,take\n1-100032-A-0.wav,1,0,dog,True,100032,A\n"
    lines += "4-119648-A-4.wav,4,0,frog,False,119648,A\n5-103415-A-2.wav,5,0,pig,False,103415,A\n"
    lay(tmp_path, **{"meta/esc50.csv": lines})
    sounds(tmp_path / "audio", "1-100032-A-0.wav", "4-119648-A-4.wav", "5-103415-A-2.wav")
    rows = sound_rows(published.esc50(tmp_path), 3)
    dog, frog = rows["1-100032-A-0.wav"], rows["4-119648-A-4.wav"]
    assert [row.split for row in rows.values()] == ["train", "val", "test"]
    assert (
        dog.captions[0] == "a dog barking" and dog.licence == "CC-BY-3.0" and frog.licence == "CC-BY-NC-3.0"
    )


def test_urbansound8k(tmp_path: Path):
    lines = "slice_file_name,fsID,start,end,salience,fold,classID,class\n"
    lines += "100032-3-0-0.wav,100032,0.0,0.317551,1,5,3,dog_bark\n"
    lines += "100263-2-0-117.wav,100263,58.5,62.5,2,10,2,children_playing\n"
    lay(tmp_path, **{"metadata/UrbanSound8K.csv": lines})
    sounds(tmp_path / "audio", "fold5/100032-3-0-0.wav", "fold10/100263-2-0-117.wav")
    rows = sound_rows(published.urbansound8k(tmp_path), 2)
    row = rows["100263-2-0-117.wav"]
    assert rows["100032-3-0-0.wav"].captions[0] == "a dog barking" and row.split == "test"
    assert row.captions == ("children playing in the background",) and row.group == "freesound/100263"


def test_fsd50k(tmp_path: Path):
    dev = 'fname,labels,mids,split\n64760,"Electric_guitar,Guitar,Music","/m/02sgy,/m/0342h",train\n16399,Rain,x,val\n'
    fact = {"license": "http://creativecommons.org/licenses/sampling+/1.0/", "uploader": "casualsamples"}
    lay(
        tmp_path,
        **{
            "FSD50K.ground_truth/dev.csv": dev,
            "FSD50K.ground_truth/eval.csv": 'fname,labels\n37199,"Bark,Dog"\n',
        },
        **{"FSD50K.metadata/dev_clips_info_FSD50K.json": json.dumps({"64760": fact})},
    )
    sounds(
        tmp_path,
        *(f"FSD50K.{name}.wav" for name in ("dev_audio/64760", "dev_audio/16399", "eval_audio/37199")),
    )
    rows = sound_rows(published.fsd50k(tmp_path), 3)
    row = rows["64760.wav"]
    assert row.captions == ("the sound of electric guitar", "sounds of electric guitar, guitar and music")
    assert (row.split, row.licence, row.author) == ("train", "CC-Sampling+-1.0", "casualsamples")
    assert rows["16399.wav"].split == "val" and rows["37199.wav"].split == "test"


def test_audioset(tmp_path: Path):
    classes = (
        'index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/t/dd00003,"Male speech, man"\n2,/m/0bt9lr,"Dog"\n'
    )
    remarks = "# Segments csv created\n# num_ytids=2\n# YTID, start_seconds, end_seconds, positive_labels\n"
    train = '--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/m/0bt9lr"\nnot_there_00, 0.000, 10.000, "/m/0bt9lr"\n'
    lay(tmp_path, **{"class_labels_indices.csv": classes, "balanced_train_segments.csv": remarks + train})
    lay(tmp_path, **{"eval_segments.csv": f'{remarks}--4gqARaEJE, 0.000, 10.000, "/t/dd00003"\n'})
    sounds(tmp_path / "audio", "--PJHxphWEs_30.000_40.000.flac", "Y--4gqARaEJE.wav")
    rows = sound_rows(published.audioset(tmp_path, val=0), 2)
    captions = ("speech and dog", "the sound of speech and dog")
    assert rows["--PJHxphWEs_30.000_40.000.flac"].captions == captions
    assert rows["Y--4gqARaEJE.wav"].split == "test"
    lay(tmp_path, **{"eval_segments.csv": f"{remarks}broken\n"})
    with pytest.raises(AudioLDMError, match=r"eval_segments\.csv:4"):
        published.audioset(tmp_path)


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
def test_a_wrong_folder_is_named(command, tmp_path: Path, reader, capsys):
    with pytest.raises(AudioLDMError, match=str(tmp_path)):
        reader(tmp_path)
    words = ("--from", tmp_path / "nowhere", "-o", tmp_path / "m.jsonl")
    assert command("data", "prepare", reader.__name__, *words) == 2
    assert "nowhere" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["", "[1]", "{", '{"data": 3}', "[" * 2000, "files: 3", "a: [", "1999-99-99"]
)
def test_a_list_that_is_none_is_named(tmp_path: Path, text: str):
    for reader, name in ((published.wavcaps, "AudioSet_SL/sb_final.json"), (published.macs, "MACS.yaml")):
        lay(tmp_path, **{name: text})
        with pytest.raises(AudioLDMError, match=name.rpartition("/")[2]):
            reader(tmp_path)


def test_tables_and_names(tmp_path: Path):
    lay(tmp_path, **{"a.csv": "\ufeffname; x \nü;1\n", "train.csv": "id,caption\n1,x\n"})
    assert [row.cells for row in table(tmp_path / "a.csv", (), None)] == [{"name": "ü", "x": "1"}]
    with pytest.raises(AudioLDMError, match="youtube_id"):
        published.audiocaps(tmp_path)
    sounds(tmp_path, "deep/b.wav")
    known = Sounds(tmp_path)
    assert known.place("none", "b") == str(tmp_path / "deep/b.wav")
    assert known.place("none.wav") == str(tmp_path / "none.wav")
