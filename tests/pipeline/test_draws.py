"""A clip that came out silent is drawn again, from seeds of its own."""

import pytest
import torch

from audioldm.pipeline.audioldm import AudioLDM
from audioldm.pipeline.draws import resample_silent, seed_of, silent


def loud(rows: list[int], seeds: list[int], on_step=None) -> torch.Tensor:
    """Noise of each seed; what people number with an odd seed is silent, and so is every draw of seed 3."""
    waves = [torch.randn(50, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    lost = {seed_of(3, attempt) for attempt in range(9)}
    on_step and on_step(1, 1)
    return torch.stack([
        wave * (0 if (seed < 100 and seed % 2) or seed in lost else 1) for wave, seed in zip(waves, seeds, strict=True)
    ])  # fmt: skip


def test_only_silent_clips_are_drawn_again_and_alone_as_among_others():
    first = loud([0, 1], [2, 4])
    waves = resample_silent(loud, [2, 1, 4, 5], size=2, retry_silent=3)
    assert torch.equal(waves[[0, 2]], first)
    assert torch.equal(waves[[1, 3]], loud([], [seed_of(1, 1), seed_of(5, 1)]))
    assert torch.equal(resample_silent(loud, [5], size=1, retry_silent=3)[0], waves[3])


def test_draws_end_and_silence_stays_silence():
    asked = []

    def draw(rows, seeds, on_step):
        asked.append(seeds)
        return loud(rows, seeds)

    assert silent(resample_silent(draw, [3, 2], size=4, retry_silent=2)) == [0]
    assert asked == [[3, 2], [seed_of(3, 1)], [seed_of(3, 2)]]
    asked.clear()
    assert silent(resample_silent(draw, [3, 1], size=4, retry_silent=0)) == [0, 1] and len(asked) == 1


def test_progress_counts_further_draws():
    told = []
    resample_silent(
        loud, [1, 2, 4], size=2, retry_silent=1, on_step=lambda done, steps: told.append((done, steps))
    )
    assert told == [(1, 2), (2, 2), (3, 3)]


def test_a_short_sound_that_the_embedded_model_loses_is_found(embedded: AudioLDM):
    prompt, how = "a blow landing on a metal shield", {"seconds": 2.56, "refine_phase": 0, "steps": 10}
    seeds = list(range(200, 206))
    before = embedded([prompt] * 6, seeds=seeds, retry_silent=0, **how)
    lost = silent(before)
    assert lost, "no seed is silent any more: the reason to draw again has gone"
    after = embedded([prompt] * 6, seeds=seeds, retry_silent=3, **how)
    kept = [i for i in range(6) if i not in lost]
    assert torch.equal(after[kept], before[kept])
    assert len(silent(after)) < len(lost)
    again = embedded([prompt], seeds=[seed_of(seeds[lost[0]], 1)], retry_silent=0, **how)
    if not silent(again):
        assert torch.equal(after[lost[0]], again[0])


def test_a_control_may_ask_for_silence(embedded: AudioLDM, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "audioldm.pipeline.audioldm.resample_silent",
        lambda *args, retry_silent, **more: asked.append(retry_silent),
    )
    embedded(["rain"], seeds=[0], retry_silent=2)
    monkeypatch.setattr(embedded, "controls", ("a control",))
    embedded(["rain"], seeds=[0], retry_silent=2)
    assert asked == [2, 0]


@pytest.fixture(scope="module")
def embedded() -> AudioLDM:
    return AudioLDM.from_pretrained()
