"""Readers of labelled data sets, each on a miniature of the files that its authors give out, with real sound in it."""

import json

import pytest
import soundfile
from sounds import sine, sound, sound_rows

from audioldm.datasets.manifest import Finding
from audioldm.datasets.prepare import labelled
from audioldm.errors import AudioLDMError


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
    assert len(labelled.PHRASES["esc50"]) == 50


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
    findings: list[Finding] = []
    assert len(labelled.audioset(tmp_path, findings=findings)) == 1 and len(findings) == 1
