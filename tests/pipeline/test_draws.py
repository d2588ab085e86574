"""A clip that came out silent is drawn again, from seeds of its own."""

from types import SimpleNamespace

import pytest
import torch

from audioldm.components import Sampling
from audioldm.errors import AudioLDMError
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.pipeline.guidance import GuidanceConfig
from audioldm.pipeline.run import resample_silent, seed_of, silent


def model(controls=()) -> SimpleNamespace:
    """What of a model the wrapper reads."""
    return SimpleNamespace(device=torch.device("cpu"), defaults=Sampling(), controls=controls)


def loud(parts, prompts, *, seeds: list[int], on_step=None, **options) -> torch.Tensor:
    """Noise of each seed; what people number with an odd seed is silent, and so is every draw of seed 3."""
    waves = [torch.randn(50, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    lost = {seed_of(3, attempt) for attempt in range(9)}
    on_step and on_step(1, 1)
    return torch.stack([
        wave * (0 if (seed < 100 and seed % 2) or seed in lost else 1) for wave, seed in zip(waves, seeds, strict=True)
    ])  # fmt: skip


def drawn(seeds: list[int], generate=loud, controls=(), **options) -> torch.Tensor:
    return resample_silent(generate)(model(controls), "rain", seeds=seeds, **options)


def test_only_silent_clips_are_drawn_again_and_alone_as_among_others():
    first = loud(None, [], seeds=[2, 4])
    waves = drawn([2, 1, 4, 5], batch_size=2, retry_silent=3)
    assert torch.equal(waves[[0, 2]], first)
    assert torch.equal(waves[[1, 3]], loud(None, [], seeds=[seed_of(1, 1), seed_of(5, 1)]))
    assert torch.equal(drawn([5], retry_silent=3)[0], waves[3])


def test_draws_end_and_silence_stays_silence():
    asked = []

    def draw(parts, prompts, *, seeds, **options):
        asked.append(seeds)
        return loud(parts, prompts, seeds=seeds)

    assert silent(drawn([3, 2], draw, batch_size=4, retry_silent=2)) == [0]
    assert asked == [[3, 2], [seed_of(3, 1)], [seed_of(3, 2)]]
    asked.clear()
    assert silent(drawn([3, 1], draw, batch_size=4, retry_silent=0)) == [0, 1] and len(asked) == 1
    asked.clear()
    assert silent(drawn([3, 1], draw, controls=("one",), batch_size=4, retry_silent=2)) == [0, 1]
    assert len(asked) == 1, "a control may ask for silence"


def test_progress_counts_further_draws():
    steps = []
    drawn([1, 2, 4], batch_size=2, retry_silent=1, on_step=lambda done, total: steps.append((done, total)))
    assert steps == [(1, 2), (2, 2), (3, 3)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": [-1]}, "seed=-1 is not a seed"),
        ({"seeds": [2**62]}, "is not a seed"),
        ({"seeds": []}, "0 prompts but 0 seeds"),
        ({"prompts": ["a", "b"], "seeds": [0]}, "2 prompts but 1 seeds"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"steps": 0}, "steps=0 is out of range"),
        ({"seconds": 0.0}, "seconds=0 is out of range"),
        ({"guidance": float("nan")}, "guidance=nan"),
        ({"retry_silent": -1}, "retry_silent=-1"),
        ({"sampler": "warp"}, "sampler='warp' is unknown"),
        ({"grid": "warp"}, "grid='warp' is unknown"),
    ],
)
def test_what_the_command_refuses_a_call_refuses(tiny_model, options, message):
    pipe = AudioLDM.from_pretrained(tiny_model)
    with pytest.raises(AudioLDMError, match=message):
        pipe(**{"prompts": "rain", "seeds": [0], **options})


@pytest.mark.parametrize(
    "numbers",
    [{"interval": (2.0, 1.0)}, {"threshold": (3.0, 1.0)}, {"threshold": (0.9, 0.0)}, {"refine": float("nan")},
     {"clap": -1.0}, {"classifier_scale": float("inf")}],
)  # fmt: skip
def test_a_guidance_of_numbers_that_mean_nothing_is_refused(numbers):
    with pytest.raises(AudioLDMError, match="out of range"):
        GuidanceConfig(**numbers)


def test_an_unknown_setting_is_a_type_error_that_names_the_known_ones(tiny_model):
    with pytest.raises(TypeError, match="stepps"):
        AudioLDM.from_pretrained(tiny_model)("rain", seeds=[0], stepps=3)


SEEDS = [205, 202]


def test_a_short_sound_that_the_embedded_model_loses_is_found(embedded):
    prompt = "a single footstep"
    how = {"seconds": 2.56, "refine_phase": 0, "steps": 10}
    before = embedded([prompt] * len(SEEDS), seeds=SEEDS, retry_silent=0, **how)
    assert silent(before) == [0], "the first seed is not silent any more: the reason to draw again has gone"
    after = embedded([prompt] * len(SEEDS), seeds=SEEDS, retry_silent=3, **how)
    assert torch.equal(after[1], before[1]) and not silent(after)
