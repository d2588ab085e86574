"""Any duration without a seam, prompts over time, loops; and the codec's windows change nothing that can be seen."""

import pytest
import torch
from torch import Generator

from audioldm.diffusion.windows import starts
from audioldm.errors import AudioLDMError
from audioldm.pipeline import longform
from audioldm.pipeline.spans import Span, parse_schedule
from audioldm.signal.mel import log_mel


def flux(pipe, wave):
    """How much the log-mel changes from frame to frame (T - 1,), root mean square over bands."""
    mel = log_mel(wave[None, None], pipe.spec)[0, 0]
    return mel.diff(dim=0).square().mean(1).sqrt()


def at_seams(pipe, wave, borders):
    """(flux near the borders, flux elsewhere); borders in latent frames, a seam two of them wide."""
    change = flux(pipe, wave)
    near = torch.zeros(len(change), dtype=torch.bool)
    stride = pipe.spec.stride
    for border in borders:
        near[max(0, (border - 1) * stride) : (border + 1) * stride] = True
    return change[near], change[~near]


@pytest.mark.parametrize("prompt", ["rain falling", pytest.param("a crackling fire", marks=pytest.mark.slow)])
def test_long_sound_has_no_seam_where_windows_begin_and_end(embedded, prompt):
    pipe, window = embedded, longform.window_frames(embedded)
    seconds = 2.5 * window * pipe.spec.seconds_per_latent
    wave = pipe([prompt], seeds=[0], seconds=seconds, steps=4, refine_phase=1)[0]
    assert len(wave) == pipe.spec.samples(seconds)
    frames = len(wave) // (pipe.spec.hop * pipe.spec.stride)
    begins = starts(frames, window, window // 2)
    borders = [b for begin in begins for b in (begin, begin + window) if 0 < b < frames]
    seams, elsewhere = at_seams(pipe, wave, borders)
    assert seams.median() < elsewhere.quantile(0.75)
    assert seams.quantile(0.95) < 1.5 * elsewhere.quantile(0.95)
    # what the same statistic says of clips that were only put one after another
    short = window * pipe.spec.seconds_per_latent
    glued = pipe([prompt] * 2, seeds=[0, 1], seconds=short, steps=4, refine_phase=1).flatten()
    seams, elsewhere = at_seams(pipe, glued, [window])
    assert seams.max() > elsewhere.quantile(0.99), "glued clips do have seams: the statistic sees them"


def test_a_loop_goes_over_into_its_begin(embedded):
    pipe, window = embedded, longform.window_frames(embedded)
    seconds = 1.5 * window * pipe.spec.seconds_per_latent
    looped = pipe(["rain falling"], seeds=[0], seconds=seconds, loop=True, steps=4, refine_phase=1)[0]
    frames = longform.loop_frames(pipe, seconds)
    assert len(looped) == frames * pipe.spec.stride * pipe.spec.hop
    twice = looped.repeat(2)
    seams, elsewhere = at_seams(pipe, twice, [frames])
    assert seams.max() < elsewhere.quantile(0.99)
    step = (looped[0] - looped[-1]).abs()
    assert step <= looped.diff().abs().quantile(0.999), "no click"


@pytest.mark.parametrize("seconds", [0.05, 0.5, 1.28, 1.3, 5.0])
def test_loops_of_any_length(pipe, seconds):
    looped = pipe(["rain"], seeds=[0], seconds=seconds, loop=True)[0]
    cell = pipe.spec.stride * pipe.spec.hop
    assert len(looped) == longform.loop_frames(pipe, seconds) * cell
    assert abs(len(looped) - seconds * 16000) <= cell or seconds < 0.1


def test_long_clips_are_the_same_alone_and_in_company(pipe):
    alone = pipe(["rain"], seeds=[4], seconds=4.0)
    among = pipe(["wind", "rain"], seeds=[3, 4], seconds=4.0)
    assert torch.equal(alone[0], among[1])
    together = pipe(["wind", "rain"], seeds=[3, 4], seconds=4.0, batch_size=2)
    assert torch.allclose(together, among, atol=1e-4)  # kernels round differently for a batch of two


def test_a_schedule_changes_what_it_should(pipe):
    told = {"seeds": [0], "seconds": 6.0, "guidance": 30.0, "steps": 2}  # untrained: hardly listens
    rain, noise = pipe(["rain"], **told)[0], pipe(["noise"], **told)[0]
    both = pipe([""], timeline=[Span(0, 3, "rain"), Span(3, 6, "noise")], **told)[0]
    far = 16000  # a second is more than a window and the fade
    assert (both[:far] - rain[:far]).abs().max() < 0.1 * (both[:far] - noise[:far]).abs().max()
    assert (both[-far:] - noise[-far:]).abs().max() < 0.1 * (both[-far:] - rain[-far:]).abs().max()


def test_the_mel_of_a_part_is_that_of_the_whole(pipe):
    wave = torch.randn(16000, generator=Generator().manual_seed(0))
    whole = log_mel(wave[None, None], pipe.spec)
    hop = pipe.spec.hop
    for begin, end in ((0, 20), (13, 57), (80, 100)):
        part = longform.mel_between(pipe, wave, begin * hop, end * hop)
        assert torch.allclose(part, whole[:, :, begin:end], atol=1e-5)


def test_windows_of_the_codec_agree_with_the_whole(embedded):
    pipe, window = embedded, longform.window_frames(embedded)
    wave = pipe(["rain falling"], seeds=[0], steps=2, refine_phase=0)[0].repeat(2)
    in_windows = longform.encode(pipe, 0.5 * wave / wave.abs().max())
    long = longform.decode(pipe, in_windows, seconds=len(wave) / pipe.spec.rate, refine_phase=0)[0]
    whole = pipe.decode(in_windows, seconds=len(wave) / pipe.spec.rate, refine_phase=0)[0]
    assert in_windows.shape[2] == 2 * window
    mels = [log_mel(w[None, None], pipe.spec) for w in (long, whole)]
    # the VAE attends to all it sees, so that windows differ a little: 0.25 nepers are 2 dB
    assert (mels[0] - mels[1]).abs().mean() < 0.25


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "empty"),
        ("rain", "FROM-TO"),
        ("1-5 rain", "begin at 0 s"),
        ("0-5 rain; 6-7 wind", "begin at 5 s"),
        ("0-5 rain; 5-5 wind", "end later"),
        ("0-5", "FROM-TO"),
        ("0-5 ", "FROM-TO"),
    ],
)
def test_schedules_that_make_no_sense_are_told(text, told):
    with pytest.raises(AudioLDMError, match=told):
        parse_schedule(text)


def test_schedules_may_be_written_freely():
    assert parse_schedule(" 0 - 5s rain on a roof ;5-12.5 thunder;") == [
        Span(0.0, 5.0, "rain on a roof"),
        Span(5.0, 12.5, "thunder"),
    ]
