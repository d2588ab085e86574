"""A model's own sets of clips: generated for a manifest, and the reference after its VAE and vocoder."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from audioldm.datasets.decode import encode, read_mono, resample
from audioldm.evaluation.bars.codec import Codec
from audioldm.evaluation.bars.sounds import Framing
from audioldm.evaluation.clips import Clips
from audioldm.evaluation.sets import Item
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.signal.level import normalise_peak

ASK = 32
"""clips asked for at a time, so that none but these is in memory"""


def generated(clips: Clips, real: Sequence[Item], *, run: int) -> list[Item]:
    """A clip for each reference; clip i of run r has seed r * n + i.   They lie in the folder of ``clips``."""
    seeds = [run * len(real) + i for i in range(len(real))]
    for start in range(0, len(real), ASK):
        part = slice(start, start + ASK)
        clips.ask([item.caption for item in real[part]], seeds[part])
    return [
        Item(item.id, clips.path(item.caption, seed), item.caption, group=item.group)
        for item, seed in zip(real, seeds, strict=True)
    ]


def round_trips(
    pipe: AudioLDM,
    real: Sequence[Item],
    seconds: float,
    folder: Path,
    *,
    step: Callable[[], None] = lambda: None,
) -> list[Item]:
    """The references after the model's mel, VAE and vocoder, each at its own loudness, as files in ``folder``."""
    codec = Codec(pipe, Framing(seconds, pipe.spec.rate))
    items = []
    for item in real:
        path = folder / f"{item.id.replace('/', '_')}.wav"
        encode(path, there_and_back(codec, item, seconds), pipe.spec.rate)
        items.append(replace(item, path=path, start=0.0, seconds=None))
        step()
    return items


def there_and_back(codec: Codec, item: Item, seconds: float) -> Tensor:
    """One clip of ``seconds``: levelled as in training, and given its own peak back."""
    wave, rate = read_mono(item.path, start=item.start, seconds=item.seconds)
    wave = resample(wave, rate, codec.spec.rate)[: codec.spec.samples(seconds)]
    peak = float((wave - wave.mean()).abs().max())
    back = codec.round_trip(codec.framing(wave, codec.spec.rate))
    return normalise_peak(back)[: len(wave)] * (peak / 0.5)
