"""The conditions of a run: prompts, sounds, mixtures of both, prompts over time.   N samples, D width of CLAP."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as nnf

from audioldm.batch import Condition
from audioldm.components import Components
from audioldm.diffusion.edit import slerp
from audioldm.diffusion.windows import shares_of
from audioldm.errors import AudioLDMError
from audioldm.pipeline.spans import Span
from audioldm.signal.level import normalise_peak

FADE = 0.5  # seconds over which neighbouring prompts of a timeline cross-fade


@dataclass(frozen=True)
class Conditions:
    """One condition (of B rows) for each span of a timeline, or one for all, and the one to steer away from."""

    rows: tuple[Condition, ...]
    empty: Condition
    shares: Tensor | None = None  # (P, T) how much each counts in every frame


@torch.no_grad()
def encode(
    parts: Components, prompts: str | Condition | Sequence[str | Condition], negative: str = "",
    timeline: Sequence[Span] | None = None, *, frames: int = 0, seeds: Sequence[int] = (),
) -> Conditions:  # fmt: skip
    """Prompts (or ready conditions of one row) to B rows; all may follow a ``timeline`` over latent frames instead.

    A model's prior draws from ``seeds`` the vector of a sound that a text may mean; without them texts stay texts.
    """
    prompts = [prompts] if isinstance(prompts, str | Condition) else prompts
    count, texts = len(prompts), [prompt for prompt in prompts if isinstance(prompt, str)]
    if len(texts) == count:
        both = parts.encode_text([negative, *texts])
    else:
        each = (parts.encode_text([one]) if isinstance(one, str) else one for one in [negative, *prompts])
        both = reduce(Condition.joined, [row.to(parts.device) for row in each])
    empty = both.rows(slice(0, 1)).trimmed().repeat(count)

    def drawn(condition: Condition, texts: Sequence[bool]) -> Condition:
        if parts.prior is None or not seeds or condition.film is None:
            return condition
        sounds = parts.prior.sample(condition.film, parts.clap.embed_text([""])[0], seeds=seeds)
        rows = torch.tensor(texts, device=sounds.device)[:, None]
        return replace(condition, film=torch.where(rows, sounds.to(condition.film), condition.film))

    if not timeline:
        rows = drawn(both.rows(slice(1, None)).trimmed(), [isinstance(prompt, str) for prompt in prompts])
        return Conditions((rows,), empty)
    spans = [drawn(parts.encode_text([span.prompt]).repeat(count), [True] * count) for span in timeline]
    seconds = [(span.begin, span.end) for span in timeline]
    return Conditions(tuple(spans), empty, shares_of(seconds, frames, parts.spec.seconds_per_latent, FADE))


def between(parts: Components, condition: Condition, other: Tensor, share: float) -> Condition:
    """``condition``, its vector moved by ``share`` of the great circle to ``other`` (B, D).   Raises AudioLDMError."""
    if condition.film is None or condition.tokens is not None:
        use = "Use a model that is conditioned on a CLAP vector."
        raise AudioLDMError(f"{parts.name} is conditioned on tokens, which cannot be mixed.", use)
    if share == 0:
        return condition
    start, end = (nnf.normalize(vector, dim=-1) for vector in (condition.film, other.to(condition.film)))
    return replace(condition, film=slerp(start, end, share))


def check_can_hear(parts: Components, option: str) -> None:
    """Raise AudioLDMError unless the model's CLAP has an audio tower."""
    if getattr(parts.clap, "audio_encoder", None) is None:
        use = "Use the original .ckpt, which has both towers, or a folder exported from it."
        raise AudioLDMError(f"{option} needs a CLAP that hears; {parts.name} has its text tower only.", use)


@torch.no_grad()
def clap_of(parts: Components, waves: Tensor) -> Tensor:
    """CLAP's embeddings (B, D) of ``waves`` (B, N), each brought to the level that it was trained at."""
    return parts.clap.embed_audio(normalise_peak(waves.float().to(parts.device))[:, None], parts.spec.rate)


@torch.no_grad()
def clap_scores(parts: Components, waves: Tensor, vectors: Tensor) -> Tensor:
    """Cosines (B,) of CLAP's embeddings of ``waves`` (B, N) and ``vectors`` (B, D).   AudioLDM (arXiv:2301.12503)."""
    return nnf.cosine_similarity(clap_of(parts, waves), vectors.to(parts.device).float(), dim=-1)


@torch.no_grad()
def sound_condition(parts: Components, wave: Tensor) -> Condition:
    """The condition of a sound (N,) without a prompt: its CLAP embedding, with the empty prompt's tokens."""
    empty = parts.encode_text([""])
    if empty.film is None:
        return empty
    sound = wave[None, None].to(parts.device).float()
    return replace(empty, film=parts.clap.embed_audio(sound, parts.spec.rate).to(empty.film))
