"""Do the clips sound like real ones as a crowd, do they differ, and are they more than copies?"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from audioldm.datasets.manifest import Row
from audioldm.metrics.distances import frechet_rows, kad, mean_pairwise_cosine_distance
from audioldm.progress import counted
from audioldm.signal.mel import LogMel
from audioldm.spec import SPECS
from recipes.embedded.tagger import load_row

from .check import Check
from .sounds import Framing

COPY = 0.98
POOL = (4, 2)
"""frames and bins that the coarse search averages over"""
SHIFT = 64
"""frames (0.64 s) that a copy may be early or late; long clips are searched in windows that overlap by this much"""
CANDIDATES = 5
DYNAMIC = 60.0 / 8.685889638
"""nepers below a clip's maximum where a mel is cut, so that two silences are alike"""
CHUNK = 128


@dataclass(frozen=True)
class Sets:
    """Embeddings (n, D) at one n: held-out and generated clips, two real halves, the held-out clips' and the first
    half's round trips through the codec.
    """

    held: Tensor
    generated: Tensor
    first: Tensor
    second: Tensor
    trip: Tensor
    trip_other: Tensor

    def part(self, index: slice) -> "Sets":
        """Some rows of each."""
        return Sets(*(rows[index] for rows in vars(self).values()))

    def distances(self, distance: Callable[[Tensor, Tensor], float]) -> dict[str, float]:
        """Of the pairs that are read beside one another."""
        return {
            "generated": distance(self.generated, self.held),
            "real halves": distance(self.first, self.second),
            "real half to held-out": distance(self.first, self.held),
            "codec, same clips": distance(self.trip, self.held),
            "codec on a real half": distance(self.trip_other, self.held),
        }


def distance(sets: Sets, what: str) -> tuple[Check, Check]:
    """Fréchet distance to held-out sounds over that of two real halves, and over the codec's; KAD beside both."""
    n, rows, kernel = len(sets.held), sets.distances(frechet_rows), sets.distances(kad)
    beside = rows | {f"KAD {name}": value for name, value in kernel.items()}
    value, floor, codec = rows["generated"], rows["real halves"], rows["codec, same clips"]
    return (
        Check(f"FD over real/real floor, {what}", value / floor, 2.0, least=False, n=n, rows=beside),
        Check(
            f"FD over codec's, {what}",
            value / codec,
            1.3,
            least=False,
            n=n,
            rows={name: rows[name] for name in ("generated", "codec, same clips", "codec on a real half")},
            detail="the codec's clips are paired with the reference",
        ),
    )


def diversity(generated: dict[str, Tensor], real: dict[str, Tensor], trip: dict[str, Tensor]) -> Check:
    """Mean pairwise cosine distance of a prompt's seeds over that within the real class; embeddings (n, 1024) each."""
    spreads = [
        {k: mean_pairwise_cosine_distance(v) for k, v in part.items()} for part in (generated, real, trip)
    ]
    ratios = {label: spreads[0][label] / spreads[1][label] for label in generated}
    least = min(ratios, key=lambda label: ratios[label])
    names = ("generated", "real", "codec on the test fold")
    return Check(
        "diversity over real class, median prompt",
        value=float(torch.tensor(list(ratios.values())).quantile(0.5)),
        limit=0.7,
        n=min(len(part) for part in generated.values()),
        rows={name: sum(part.values()) / len(part) for name, part in zip(names, spreads, strict=True)},
        detail=f"lowest: {least} {ratios[least]:.2f}; {sum(r >= 0.7 for r in ratios.values())} of "
        f"{len(ratios)} prompts reach 0.7",
        more={"ratios": ratios},
    )


class CopySearch:
    """Finds the training clip whose log-mel correlates best with a clip, over shifts of up to 0.64 s."""

    def __init__(self, rows: Sequence[Row], framing: Framing, *, device: str = "cpu") -> None:
        self.rows, self.framing, self.device = rows, framing, device
        spec = SPECS["16k_64"]
        self.mel = LogMel(spec).to(device)
        self.frames = spec.frames(framing.seconds) // POOL[0] * POOL[0]

    def __call__(self, waves: Sequence[Tensor]) -> tuple[Tensor, list[Row]]:
        """Highest correlation of each 16 kHz wave (n,), and the row that has it."""
        sharp = torch.cat([self.image(wave)[:, : self.frames] for wave in waves])
        coarse = pooled(sharp)
        best = torch.full((len(waves), CANDIDATES), -2.0)
        where = torch.zeros(len(waves), CANDIDATES, dtype=torch.long)
        places: list[tuple[int, int]] = []
        for part in self.chunks():
            wide = torch.cat([pooled(self.window(image, start)) for _, start, image in part])
            scores = shifted_correlation(coarse, wide).amax(dim=-1).cpu()
            index = torch.arange(len(places), len(places) + len(part)).expand(len(waves), -1)
            places += [(row, start) for row, start, _ in part]
            best, order = torch.cat([best, scores], dim=1).topk(CANDIDATES, dim=1)
            where = torch.cat([where, index], dim=1).gather(1, order)
        return self.refine(sharp, where, places)

    def refine(self, sharp: Tensor, where: Tensor, places: list[tuple[int, int]]) -> tuple[Tensor, list[Row]]:
        """The candidates again at full resolution, over frames that sound."""
        values, rows = [], []
        for image, candidates in zip(sharp, where.tolist(), strict=True):
            tried = []
            for row, start in {places[i] for i in candidates if i < len(places)}:
                wide = self.window(self.image(load_row(self.rows[row], self.framing.rate)), start)
                tried.append((sounding_correlation(image, wide[0], likely_shifts(image, wide[0])), row))
            value, row = max(tried)
            values.append(value)
            rows.append(self.rows[row])
        return torch.tensor(values), rows

    def image(self, wave: Tensor) -> Tensor:
        """Log-mel (1, T, F) of a whole wave, cut 60 dB below its maximum; zeros fill up to one window."""
        short = max(0, round(self.framing.seconds * self.framing.rate) - len(wave))
        wave = torch.nn.functional.pad(wave, (0, short)).to(self.device)
        mel = self.mel(wave[None, None])[0]
        return mel.clamp_min(float(mel.max()) - DYNAMIC)

    def window(self, image: Tensor, start: int) -> Tensor:
        """Frames start - SHIFT to start + T + SHIFT of an image; its floor outside."""
        floor = float(image.min())
        padded = torch.nn.functional.pad(image, (0, 0, SHIFT, SHIFT + self.frames), value=floor)
        return padded[:, start : start + self.frames + 2 * SHIFT]

    def chunks(self) -> Iterator[list[tuple[int, int, Tensor]]]:
        """(row, first frame, image) of every window of every training clip, CHUNK at a time."""
        part: list[tuple[int, int, Tensor]] = []
        for index, row in enumerate(counted(self.rows, "training clips")):
            image = self.image(load_row(row, self.framing.rate))
            starts = range(0, max(1, image.shape[1] - self.frames + 2 * SHIFT), 2 * SHIFT)
            part += [(index, start, image) for start in starts]
            if len(part) >= CHUNK:
                yield part
                part = []
        if part:
            yield part


def pooled(image: Tensor) -> Tensor:
    """(n, T, F) averaged over POOL."""
    return torch.nn.functional.avg_pool2d(image[:, None], POOL)[:, 0]


def copies(scores: Tensor, nearest: Sequence[Row], real: Tensor, trip: Tensor) -> Check:
    """Share of clips whose nearest training clip stays below COPY, beside that of held-out real clips."""
    above = [row.path for value, row in zip(scores.tolist(), nearest, strict=True) if value >= COPY]
    return Check(
        f"clips below {COPY} to any training clip",
        value=1 - len(above) / len(scores),
        limit=0.95,
        n=len(scores),
        rows={
            "real held-out": float((real < COPY).double().mean()),
            "codec on them": float((trip < COPY).double().mean()),
            "median correlation": float(scores.median()),
            "real median": float(real.median()),
        },
        detail=f"{len(above)} above; highest {float(scores.max()):.3f}",
        more={"above": above, "correlations": scores.tolist(), "real": real.tolist()},
    )


def standardised(rows: Tensor) -> Tensor:
    """Rows (..., D) with mean 0 and length 1, so that a product is Pearson's correlation; a constant row becomes 0."""
    centred = rows - rows.mean(dim=-1, keepdim=True)
    length = centred.norm(dim=-1, keepdim=True)
    return torch.where(length > 1e-6, centred / length.clamp_min(1e-6), torch.zeros_like(centred))


def shifted_correlation(image: Tensor, wide: Tensor) -> Tensor:
    """Pearson's correlation of images (n, T, F) with every window of wide ones (m, T + S, F): (n, m, S + 1).

    >>> wide = torch.arange(12.0).sin().reshape(1, 6, 2)
    >>> shifted_correlation(wide[:, 1:5], wide)[0, 0].argmax().item()
    1
    """
    frames = image.shape[1]
    flat = standardised(image.flatten(1))
    windows = [
        flat @ standardised(wide[:, start : start + frames].flatten(1)).T
        for start in range(wide.shape[1] - frames + 1)
    ]
    return torch.stack(windows, dim=-1)


def likely_shifts(image: Tensor, wide: Tensor, count: int = 3) -> list[int]:
    """First frames in ``wide`` (T + S, F) around the best places of ``image`` (T, F) at the coarse resolution."""
    coarse = shifted_correlation(pooled(image[None]), pooled(wide[None]))[0, 0]
    best = coarse.topk(min(count, len(coarse))).indices.tolist()
    near = {POOL[0] * place + step for place in best for step in range(-POOL[0], POOL[0] + 1)}
    return sorted(start for start in near if 0 <= start <= wide.shape[0] - image.shape[0])


def sounding_correlation(image: Tensor, wide: Tensor, starts: Sequence[int] | None = None) -> float:
    """The best of the same for one image (T, F) and one wide (T + S, F), over frames in which either one sounds.

    ``starts`` are the first frames in ``wide`` that are tried, all where none are named.

    A frame sounds if anything in it is above its picture's minimum.   Frames in which both are silent would make any
    two short sounds alike.

    >>> sound = torch.tensor([[0.0, 0.0], [1.0, 3.0], [0.0, 0.0]])
    >>> round(sounding_correlation(sound, torch.nn.functional.pad(sound, (0, 0, 2, 0))), 6)
    1.0
    """
    frames = image.shape[0]
    sounds, wide_sounds = (part.amax(dim=1) > part.min() + 1e-3 for part in (image, wide))
    best = -1.0
    for start in range(wide.shape[0] - frames + 1) if starts is None else starts:
        part = slice(start, start + frames)
        sounding = sounds | wide_sounds[part]
        if bool(sounding.any()):
            a, b = standardised(image[sounding].flatten()), standardised(wide[part][sounding].flatten())
            best = max(best, float(a @ b))
    return best
