"""What a prepared test holds: blind, equally loud, PCM16, cut to one length; and what is refused."""

import hashlib
import io
import json
import shutil
import stat

import numpy as np
import pytest
import soundfile
import torch

from audioldm.datasets.loudness import loudness
from audioldm.errors import AudioLDMError
from audioldm.listening import stimuli
from audioldm.listening.folder import load
from audioldm.listening.prepare import Choices, gather, prepare, write
from audioldm.progress import listening

SINE = np.sin(2 * np.pi * 997 * np.arange(2 * stimuli.RATE) / stimuli.RATE).astype(np.float32)


def test_files_tell_nothing(make, systems):
    test = make()
    names = {path.name for path in (test.folder / "audio").iterdir()}
    assert set(test.clips) <= names
    public = " ".join(names)
    for word in ("old", "new", "dog", "rain", "damaged"):
        assert word not in public
    assert len({(test.folder / "audio" / name).stat().st_size for name in test.clips}) == 1
    assert stat.S_IMODE((test.folder / "test.json").stat().st_mode) == 0o600


def test_same_seed_same_test_and_without_one_another(make, systems, tmp_path):
    first = make(seed=3)
    two = {name: systems[name] for name in ("old", "new")}
    assert prepare(two, tmp_path / "again", Choices(seed=3)).clips == first.clips
    drawn = [prepare(two, tmp_path / name, Choices()).design.secret for name in ("x", "y")]
    assert len({*drawn, first.design.secret}) == 3


@pytest.mark.parametrize("method", ["ab", "acr", "abx", "mushra"])
def test_every_clip_is_pcm16_at_48_khz_and_equally_loud(make, method):
    test = make(method)
    for name, clip in test.clips.items():
        path = test.folder / "audio" / name
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (48_000, 1, "PCM_16")
        wave, _ = soundfile.read(path, dtype="float32")
        measured = loudness(torch.from_numpy(wave), 48_000)
        assert measured == pytest.approx(clip["lufs_before"] + clip["gain_db"], abs=0.1)
        same = [c for c in test.clips.values() if c["prompt"] == clip["prompt"]]
        levels = [c["lufs_before"] + c["gain_db"] for c in same]
        assert max(levels) - min(levels) < 0.02, "the clips of one prompt are equally loud"
        assert np.abs(wave).max() <= 10 ** (-1 / 20) + 1e-4
        assert abs(wave[0]) < 0.01
        assert abs(wave[-1]) < 0.01


def test_headroom_is_common_to_a_prompt():
    click = np.zeros(stimuli.RATE, dtype=np.float32)
    click[20_000:20_050] = 1.0  # -23 LUFS would need a peak far above full scale
    levelled = stimuli.level({"click": click, "sine": 0.1 * SINE[: stimuli.RATE]})
    peak = 20 * np.log10(np.abs(levelled["click"][0]).max())
    assert peak == pytest.approx(stimuli.PEAK_DBFS, abs=0.01)
    loud = {name: lufs + gain for name, (_, lufs, gain) in levelled.items()}
    assert loud["sine"] == pytest.approx(loud["click"], abs=0.02)
    assert loud["sine"] < stimuli.TARGET_LUFS - 1


def test_a_nearly_silent_clip_is_not_blown_up_without_end():
    levelled = stimuli.level({"quiet": 0.0012 * SINE})
    assert levelled["quiet"][2] == stimuli.LARGEST_GAIN_DB


def test_anchor_passes_below_and_stops_above():
    cutoff = stimuli.ANCHOR_HZ
    impulse = np.zeros(4096, dtype=np.float32)
    impulse[2048] = 1
    response = 20 * np.log10(np.abs(np.fft.rfft(stimuli.lowpass(impulse, cutoff))) + 1e-12)
    hertz = np.fft.rfftfreq(4096, 1 / stimuli.RATE)
    passed = response[(hertz < cutoff)]
    assert np.abs(passed).max() < 0.1, "BS.1534-3: ripple of 0.1 dB at most"
    stop = hertz > cutoff + 1000
    assert response[stop].max() < -50, "BS.1534-3 asks for 50 dB from 1 kHz above 3.5 kHz on"
    assert np.argmax(np.abs(stimuli.lowpass(impulse, cutoff))) == 2048, "no delay against the reference"


def test_damage_is_heard_on_any_sound():
    rng = np.random.default_rng(0)
    for wave in (SINE, rng.normal(0, 0.1, 2 * stimuli.RATE).astype(np.float32)):
        made = stimuli.damage(wave)
        pieces = np.abs(made[: 24 * 3840].reshape(24, 3840)[:, 800:3000]).max(axis=1)
        assert pieces[1::2].max() < 0.02 * pieces[::2].max(), "every other 80 ms are silent"


def test_volume_noise_and_beeps():
    noise = stimuli.volume_noise()
    assert loudness(torch.from_numpy(noise), stimuli.RATE) == pytest.approx(-23, abs=0.1)
    octaves = [(125, 250), (1000, 2000), (4000, 8000)]
    power = np.abs(np.fft.rfft(noise)) ** 2
    hertz = np.fft.rfftfreq(len(noise), 1 / stimuli.RATE)
    energy = [power[(hertz >= low) & (hertz < high)].sum() for low, high in octaves]
    assert max(energy) / min(energy) < 1.2, "pink: equal energy in each octave"
    for count in (2, 5):
        loud = np.abs(stimuli.beeps(count)) > 1e-4
        edges = np.flatnonzero(np.diff(loud.astype(int)) == 1)
        assert sum(np.diff(edges, prepend=-10_000) > 5_000) == count


def test_wav_bytes_survive_as_integers(tmp_path):
    digest = write(tmp_path / "a.wav", 0.25 * SINE)
    content = (tmp_path / "a.wav").read_bytes()
    assert digest == hashlib.sha256(content).hexdigest()
    back, rate = soundfile.read(io.BytesIO(content), dtype="int16")
    assert (rate, np.abs(back).max()) == (stimuli.RATE, pytest.approx(8192, abs=1))
    assert len(content) == 44 + 2 * len(SINE), "a bare header: no metadata that could name the source"


def test_uneven_lengths_are_refused_or_cut(systems, tmp_path):
    for name in ("old", "new"):
        shutil.copytree(systems[name], tmp_path / name)
    wave, rate = soundfile.read(tmp_path / "new/dog.wav", dtype="float32")
    soundfile.write(tmp_path / "new/dog.wav", wave[: int(0.35 * rate)], rate)
    two = {name: tmp_path / name for name in ("old", "new")}
    with pytest.raises(AudioLDMError, match=r"last 0\.35 to 0\.45 s.*--cut"):
        prepare(two, tmp_path / "test", Choices())
    assert not (tmp_path / "test").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")], "nothing is left behind"
    test = prepare(two, tmp_path / "test", Choices(cut=True))
    lengths = {clip["seconds"] for clip in test.clips.values() if clip["prompt"] == "dog"}
    assert lengths == {0.35}
    assert test.about["prompts_cut_to_one_length"] == 1


def test_answers_are_never_overwritten(make, systems):
    test = make()
    two = {name: systems[name] for name in ("old", "new")}
    with pytest.raises(AudioLDMError, match="--force"):
        prepare(two, test.folder, Choices())
    prepare(two, test.folder, Choices(), force=True)
    test.responses.write_text("")
    with pytest.raises(AudioLDMError, match="holds answers"):
        prepare(two, test.folder, Choices(), force=True)


def test_force_replaces_nothing_but_a_test(systems, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "letter.txt").write_text("dear")
    two = {name: systems[name] for name in ("old", "new")}
    with pytest.raises(AudioLDMError, match="not a listening test"):
        prepare(two, tmp_path / "precious", Choices(), force=True)
    assert (tmp_path / "precious" / "letter.txt").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda f: (f / "new/dog.wav").unlink(), "new lacks 'dog'"),
        (lambda f: (f / "new/dog.wav").write_bytes(b"RIFFjunk"), "Cannot read audio"),
        (lambda f: soundfile.write(f / "new/dog.wav", np.zeros(7200), 16_000), "is silent"),
        (lambda f: soundfile.write(f / "new/dog.wav", np.full(7200, np.nan), 16_000, "FLOAT"), "not finite"),
        (lambda f: (f / "new/dog.json").write_text('{"prompt": "a cat"}'), "says 'a dog barking'.*'a cat'"),
        (lambda f: (f / "new/dog.json").write_text("{"), "is not JSON"),
        (lambda f: shutil.copy(f / "new/dog.wav", f / "new/dog.flac"), "more than once"),
        (lambda f: shutil.rmtree(f / "new"), "There is no folder"),
    ],
)
def test_bad_clips_are_named(systems, tmp_path, change, told):
    for name in ("old", "new"):
        shutil.copytree(systems[name], tmp_path / name)
    change(tmp_path)
    with pytest.raises(AudioLDMError, match=told):
        prepare({name: tmp_path / name for name in ("old", "new")}, tmp_path / "test", Choices())
    assert not (tmp_path / "test").exists()


def test_impossible_tests_are_refused(systems, tmp_path):
    two = {name: systems[name] for name in ("old", "new")}
    for choices, told in (
        (Choices("mushra"), "needs a reference"),
        (Choices("mushra", reference="real"), "not a system"),
    ):
        with pytest.raises(AudioLDMError, match=told):
            prepare(two, tmp_path / "test", choices)
    for name in ("a\x1b[2Jb", "a\nb", "a:b", " ", "anchor3500"):
        with pytest.raises(AudioLDMError, match="cannot be a system's name"):
            prepare({name: systems["old"], "new": systems["new"]}, tmp_path / "test", Choices())
    with pytest.raises(AudioLDMError, match="2 or more"):
        prepare({"old": systems["old"]}, tmp_path / "test", Choices())
    assert prepare({"old": systems["old"]}, tmp_path / "acr", Choices("acr")).about["systems"] == 1


def test_captions_from_a_table(systems, tmp_path):
    table = tmp_path / "captions.csv"
    table.write_text("id,caption\ndog,one\nrain,two\nsea,three\n")
    with pytest.raises(AudioLDMError, match=r"no caption for 'bell' \(1 missing\)"):
        gather(systems, table)
    table.write_text(table.read_text() + "bell,four\n")
    assert gather(systems, table)[1]["bell"] == "four"
    table.write_text("name,text\n")
    with pytest.raises(AudioLDMError, match="has no columns"):
        gather(systems, table)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda f: (f / "test.json").unlink(), "There is no"),
        (lambda f: (f / "test.json").write_text("{}"), "another format"),
        (lambda f: (f / "test.json").write_text("{"), "is not JSON"),
        (lambda f: change_public(f, lufs=None), "has no lufs"),
        (lambda f: change_public(f, title=["a"]), "has no title"),
        (lambda f: min((f / "audio").glob("[0-9a-f]*.wav")).write_bytes(b"x"), "was changed|is missing"),
    ],
)
def test_a_damaged_test_folder_is_refused(make, change, told):
    test = make()
    change(test.folder)
    with pytest.raises(AudioLDMError, match=told):
        load(test.folder)


def rewrite(folder, change):
    """A foreign test folder: its test.json says what it likes."""
    content = json.loads((folder / "test.json").read_text())
    change(content)
    (folder / "test.json").write_text(json.dumps(content))


def change_public(folder, **fields):
    rewrite(folder, lambda content: content["about"].update(fields))


def test_a_key_that_leads_out_of_the_folder_is_refused(make):
    test = make()
    (test.folder / "secret.wav").write_bytes(b"not for raters")
    digest = hashlib.sha256(b"not for raters").hexdigest()
    for name in ("../secret.wav", "/etc/hostname", "a/../../secret.wav", "..\\secret.wav", ""):

        def change(key, name=name):
            clip = key["clips"].pop(next(iter(key["clips"])))
            key["clips"] = {name: {**clip, "sha256": digest}, **key["clips"]}

        rewrite(test.folder, change)
        with pytest.raises(AudioLDMError, match="leads out"):
            load(test.folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda key: key.pop("design"),
        lambda key: key["design"].update(colour="red"),
        lambda key: key.update(clips=[1]),
        lambda key: next(iter(key["clips"].values())).pop("version"),
    ],
)
def test_a_key_of_another_shape_is_refused(make, change):
    test = make()
    rewrite(test.folder, change)
    with pytest.raises(AudioLDMError, match=r"test\.json"):
        load(test.folder)


def test_force_replaces_a_test_whole_or_not_at_all(systems, tmp_path, monkeypatch):
    two = {name: systems[name] for name in ("old", "new")}
    before = prepare(two, tmp_path / "test", Choices(seed=1)).about["key"]

    def full(*words):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(stimuli, "beeps", full)
        with pytest.raises(AudioLDMError, match="No space left"):
            prepare(two, tmp_path / "test", Choices(seed=2), force=True)
    assert load(tmp_path / "test").about["key"] == before
    assert [path.name for path in tmp_path.iterdir()] == ["test"]
    after = prepare(two, tmp_path / "test", Choices(seed=2), force=True).about["key"]
    assert after != before
    assert [path.name for path in tmp_path.iterdir()] == ["test"]


def test_answers_that_came_meanwhile_are_kept(systems, tmp_path):
    two = {name: systems[name] for name in ("old", "new")}
    before = prepare(two, tmp_path / "test", Choices(seed=1)).about["key"]

    def answered(unit, done, total):
        (tmp_path / "test" / "responses.jsonl").write_text("")

    with pytest.raises(AudioLDMError, match="holds answers"), listening(answered):
        prepare(two, tmp_path / "test", Choices(seed=2), force=True)
    assert load(tmp_path / "test").about["key"] == before
    assert [path.name for path in tmp_path.iterdir()] == ["test"]
