"""Clip sounds are what their captions say, and the same command makes the same ones again."""

import os
import shutil
from dataclasses import replace

import pytest
import torch
from sounds import sine

from audioldm.datasets.check import check
from audioldm.datasets.decode import decode, encode
from audioldm.datasets.synthetic import HIGH, LOW
from audioldm.errors import AudioLDMError
from recipes.embedded import general_midi, notes, rendering, speech, tones
from recipes.embedded.general_midi import INSTRUMENTS, Note, midi, play, soundfont
from recipes.embedded.rendering import Clip, chooser, fit, program, write

RATE = 16000
midi_tools = pytest.mark.skipif(
    not shutil.which("fluidsynth") or not any(map(os.path.isfile, general_midi.SOUNDFONTS)),
    reason="needs `apt-get install fluidsynth fluid-soundfont-gm`",
)
speech_tool = pytest.mark.skipif(not shutil.which("espeak-ng"), reason="needs `apt-get install espeak-ng`")


def pitch(wave):
    """Hz of the shortest lag at which (N,) almost equals itself."""
    spectrum = torch.fft.rfft(wave, n=2 * len(wave))
    likeness = torch.fft.irfft(spectrum.abs().square())[: RATE // 25]
    likeness = likeness / likeness[0]
    first_dip = int((likeness < 0.3).nonzero()[0])
    near = (likeness[first_dip:] > 0.8 * likeness[first_dip:].max()).nonzero()[0]
    lag = first_dip + int(near)
    while likeness[lag + 1] > likeness[lag]:
        lag += 1
    return RATE / lag


def one(make, **changes):
    sound = Clip("key", ("a tone",), ("x",), "g", "CC0-1.0", "me", "rendered/x", make)
    return replace(sound, **changes)


def test_write_makes_each_sound_once_and_names_what_failed(tmp_path):
    calls = []

    def make():
        calls.append(1)
        return torch.from_numpy(sine(2.0))

    def fails():
        raise AudioLDMError("the tool said no", code=1)

    sounds = [one(make), one(lambda: torch.zeros(100), key="quiet"), one(fails, key="bad")]
    rows, findings = write(sounds, tmp_path)
    assert [finding.kind for finding in findings] == ["unmade", "unmade"]
    assert "silent" in findings[0].detail and "the tool said no" in findings[1].detail
    again, _ = write(sounds[:1], tmp_path)
    assert again == rows and len(calls) == 1
    assert not check(rows).findings
    other, _ = write([one(make, key="another")], tmp_path)
    assert other[0].path != rows[0].path


def test_a_program_that_is_not_there_is_told_with_its_cure(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AudioLDMError, match="apt-get install espeak-ng") as caught:
        write([one(lambda: program("espeak-ng"))], tmp_path)
    assert caught.value.code == 2
    with pytest.raises(AudioLDMError, match=r"nowhere\.sf2"):
        soundfont(tmp_path / "nowhere.sf2")


def test_fit_cuts_pads_and_sets_the_peak():
    for seconds in (0.5, 2.0):
        out = fit(torch.from_numpy(sine(1.0)), seconds)
        assert len(out) == seconds * RATE
        assert float(out.abs().max()) == pytest.approx(0.8)


def test_every_register_is_true_of_the_instrument_and_of_the_ear():
    for instrument, word in notes.PAIRS:
        keys, middle = notes.registers(instrument)[word], (instrument.low + instrument.high) / 2
        assert instrument.low <= keys[0] <= keys[-1] <= instrument.high
        if word == "low":
            assert keys[-1] < 60 and keys[-1] < middle
        if word == "high":
            assert keys[0] > 70 and keys[0] > middle
    names = {(instrument.name, word) for instrument, word in notes.PAIRS}
    assert {("cello", "low"), ("violin", "high"), ("tuba", "low"), ("piccolo", "high")} <= names
    assert not {("tuba", "high"), ("piccolo", "low")} & names


def test_plans_depend_on_seed_and_index_only_and_cover_every_pair():
    plans = [notes.plan(i, 0) for i in range(400)]
    assert plans[77] == notes.plan(77, 0) != notes.plan(77, 1)
    singles = [plan[5][0] for i, plan in enumerate(plans) if i % 10 < 5]
    assert len(set(singles[: len(notes.PAIRS)])) == len(notes.PAIRS)
    assert all(2.0 <= plan[3] <= 5.0 for plan in plans)
    assert all(0 <= note.key <= 127 and note.start < plan[3] for plan in plans for note in plan[4])


def test_phrases_say_what_is_played():
    for index in range(300):
        label, _, _, _, played, captions = notes.plan(index, 3)
        keys = [note.key for note in played]
        if "ascending" in captions[0]:
            assert keys == sorted(set(keys))
        elif "descending" in captions[0]:
            assert keys == sorted(set(keys), reverse=True)
        elif "repeating" in captions[-1]:
            assert len(set(keys)) == 1 and len(keys) > 2
        elif captions[0].endswith(" chord"):
            assert keys[2] - keys[0] == 7 and keys[1] - keys[0] == (4 if "major" in captions[0] else 3)
        elif "hits" in captions[0]:
            assert len(keys) == ["", "a", "two", "three", "four"].index(captions[0].split()[0])
        elif label.endswith("note"):
            assert len(keys) == 1


def test_a_midi_file_ends_after_every_key_is_released():
    song = midi([Note(0.0, 9.0, 60), Note(0.5, 0.5, 60), Note(2.0, 1.0, 64)], 40, seconds=1.0)
    assert song.startswith(b"MThd\0\0\0\x06\0\0\0\x01") and song.endswith(b"\xff\x2f\x00")
    assert song.count(bytes([0x90, 60])) == song.count(bytes([0x80, 60])) == 2
    assert bytes([0x90, 64]) not in song, "a note that begins after the end is not played"


@midi_tools
@pytest.mark.parametrize(("name", "key"), [("cello", 43), ("violin", 88), ("flute", 72), ("trumpet", 67)])
def test_an_instrument_plays_the_key(name, key):
    instrument = next(item for item in INSTRUMENTS if item.name == name)
    song = midi([Note(0.05, 1.7, key)], instrument.program, seconds=2.0)
    wave = play(song, soundfont(), 2.0)
    assert len(wave) == 2 * RATE
    # vibrato and the whole number of samples in a period stay within half a semitone below 1.4 kHz
    assert pitch(wave[RATE // 2 : RATE]) == pytest.approx(440 * 2 ** ((key - 69) / 12), rel=0.03)
    assert torch.equal(wave, play(song, soundfont(), 2.0))


@midi_tools
def test_rendered_rows_are_sound_and_licensed(tmp_path):
    rows, findings = write(notes.sounds(10, 0), tmp_path)
    report = check(rows)
    assert not findings and not report.findings
    assert all(row.licence == "MIT" and row.author and row.source == "rendered/notes" for row in report.rows)
    assert all(2.0 <= row.seconds <= 5.0 for row in report.rows)


@speech_tool
def test_speech_lasts_as_long_as_its_words(tmp_path):
    sentences = speech.sounds(6, 0)
    rows, findings = write(sentences, tmp_path)
    report = check(rows)
    assert not findings and not report.findings
    assert all(2.0 <= row.seconds <= 5.0 for row in report.rows)
    assert "whispering" in rows[4].captions[0]
    assert "in English" not in rows[5].captions[0] and " in " in rows[5].captions[0]
    slow, fast = (speech.speak("The water is very cold today.", "en-us+m1", pace, 50) for pace in (110, 230))
    assert len(slow) > len(fast)


@pytest.mark.parametrize(("word", "band"), [("low", LOW), ("middle", tones.MIDDLE), ("high", HIGH)])
def test_steady_tones_lie_in_their_band(word, band):
    found = 0
    for index in range(0, 12 * 30, 12):
        kind, _, (wave, captions) = tones.make(index, 0)
        if kind == "tone" and captions[0] == f"a {word} tone":
            spectrum = torch.fft.rfft(wave * torch.hann_window(len(wave))).abs()
            assert band[0] - 1 <= float(spectrum.argmax()) * RATE / len(wave) <= band[1] + 1
            found += 1
    assert found


def test_beeps_are_as_many_as_said():
    for index in range(2, 12 * 12, 12):
        _, _, (wave, captions) = tones.make(index, 0)
        loud = torch.nn.functional.max_pool1d(wave.abs()[None], 801, 1, 400)[0] > 0.2
        bursts = int((loud[1:] & ~loud[:-1]).sum())
        words = {"a single": 1, "two": 2, "three": 3, "four": 4, "five": 5}
        assert bursts == next(n for w, n in words.items() if captions[0].startswith(w)), captions


def test_every_kind_of_tone_is_heard_and_repeats(tmp_path):
    kinds = tones.sounds(len(tones.KINDS), 5)
    rows, findings = write(kinds, tmp_path)
    assert not findings and not check(rows).findings
    assert {row.labels[0] for row in rows} == set(tones.KINDS)
    first = decode(rows[3].path, RATE)
    encode(tmp_path / "again.flac", kinds[3].make(), RATE)
    assert torch.equal(first, decode(tmp_path / "again.flac", RATE))


def test_choices_depend_on_the_name_too():
    assert chooser(0, "a", 1).random() != chooser(0, "b", 1).random()


def test_a_program_that_never_stops_writing_is_stopped(monkeypatch, tmp_path):
    monkeypatch.setattr(rendering, "TOOL_BYTES", 2**20)
    with pytest.raises(AudioLDMError, match="did not work") as caught:
        rendering.run(["dd", "if=/dev/zero", f"of={tmp_path}/big", "bs=65536"])
    assert caught.value.code == 1
    assert (tmp_path / "big").stat().st_size <= 2**20
