"""What the embedded model's lease trains on: windows drawn from clips, wordings, and YAMNet by torch."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from audioldm.datasets.decode import encode
from audioldm.datasets.manifest import Row
from recipes.embedded import model_lease
from recipes.embedded.captions import kind, wordings
from recipes.embedded.model_lease import Windows, read_parts, train_vae


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """One part with three clips: a short one that may be repeated, one of a window, and a long one."""
    folder = tmp_path / "part0"
    folder.mkdir()
    rows = []
    rng = np.random.default_rng(0)
    for name, seconds, caption in (
        ("a", 0.4, "a dog barking"),
        ("b", 5.12, "rain falling"),
        ("c", 9.0, "wind blowing"),
    ):
        soundfile.write(folder / f"{name}.wav", rng.uniform(-0.1, 0.1, int(16000 * seconds)), 16000)
        rows.append(
            {
                "path": f"{name}.wav",
                "weight": 1.0,
                "kind": kind(caption),
                "texts": wordings(caption),
                "repeats": name == "a",
            }
        )
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "done").touch()
    (tmp_path / "valid").mkdir()
    (tmp_path / "valid" / "list.jsonl").write_text(json.dumps({**rows[1], "path": "../part0/b.wav"}))
    return tmp_path


@pytest.fixture
def windows(parts: Path) -> Windows:
    return Windows(read_parts(parts, 1, 1), torch.device("cpu"))


def test_windows_peak_at_half_and_say_what_they_hold(windows: Windows) -> None:
    torch.manual_seed(0)
    wave, text, kinds = windows.draw(40, model_lease.WINDOW)
    assert wave.shape == (40, model_lease.WINDOW)
    torch.testing.assert_close(wave.abs().amax(1), torch.full((40,), 0.5))
    single = kinds >= 0
    assert 0 < (~single).sum() < 12
    # a single clip's text is one of its own
    for t, k in zip(text[single].tolist(), kinds[single].tolist(), strict=True):
        row = next(i for i, place in enumerate(windows.kind.tolist()) if place == k)
        assert windows.texts[t] in windows.rows[row]["texts"]
    torch.manual_seed(0)
    torch.testing.assert_close(windows.draw(40, model_lease.WINDOW)[0], wave)


def test_only_clips_that_may_be_repeated_are(windows: Windows) -> None:
    torch.manual_seed(0)
    short = windows.placed(torch.zeros(60, dtype=torch.long), model_lease.WINDOW)
    # 0.4 s of noise sounds for 0.4 s, or again and again
    heard = (short.abs() > 1e-3).float().mean(1) * 5.12
    assert (heard < 0.45).sum() > 10 and (heard > 1.0).sum() > 20
    windows.repeats[:] = False
    once = windows.placed(torch.zeros(60, dtype=torch.long), model_lease.WINDOW)
    assert ((once.abs() > 1e-3).float().mean(1) * 5.12 < 0.45).all()


def test_pairs_carry_captions_of_both(windows: Windows) -> None:
    first, second, _, text = windows.pair[0].tolist()
    assert (
        windows.rows[first]["texts"][0] in windows.texts[text]
        or windows.rows[second]["texts"][0] in windows.texts[text]
    )
    assert windows.rows[first]["kind"] != windows.rows[second]["kind"]


def test_an_autoencoder_is_trained_and_kept(parts: Path, windows: Windows, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    args = argparse.Namespace(
        widths="8,8", channels=4, layers=1, groups=4, resume=None, width_discriminator=4, lr=1e-3, rows=2, kl=0.01,
        adversarial=1, out=out, minutes=1, steps=3, parts=parts, limit=None, eager=True,
    )  # fmt: skip
    train_vae(args, windows, torch.device("cpu"))
    result = json.loads((out / "vae.json").read_text())
    assert result["steps"] == 3 and result["valid_l1"] < 20 and (out / "vae" / "config.json").exists()


def test_wordings_keep_the_caption_first_and_repeat_nothing() -> None:
    texts = wordings("an alto saxophone playing an F 3 note loudly")
    assert texts[0] == "an alto saxophone playing an F 3 note loudly" and len(set(texts)) == len(texts)
    assert "a saxophone playing a note" in texts
    assert kind(texts[0]) == "an alto saxophone playing"


def test_tags_of_many_sounds_at_once_and_of_rows_are_yamnets(tmp_path) -> None:
    yamnet = pytest.importorskip("audioldm.evaluation.embedders.yamnet")
    from recipes.embedded.tagger import Tagger, embed_rows

    wave = 0.1 * torch.randn(2, 40000, generator=torch.Generator().manual_seed(0))
    embeddings, logits = Tagger(yamnet.data_folder() / yamnet.ARCHIVE, "cpu")(wave)
    for row in range(2):
        alone = yamnet.YamNet().embed(wave[row])
        # two libraries' convolutions: rounding of float32, 5e-5 was seen
        torch.testing.assert_close(logits[row], alone.logits, atol=1e-3, rtol=0)
        torch.testing.assert_close(embeddings[row], alone.rows, atol=1e-3, rtol=1e-3)
    path = encode(tmp_path / "a.wav", wave[0], 16000)
    (pooled,) = embed_rows([Row(str(path), ("noise",), start=0.5, seconds=1.0)], yamnet.YamNet())
    part = (wave[0, 8000:24000] * 32768).round() / 32768  # the file has 16 bits
    torch.testing.assert_close(pooled, yamnet.YamNet().embed(part).rows.mean(dim=0), rtol=0, atol=1e-2)
