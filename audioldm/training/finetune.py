"""Trains a model further: through an adapter, through all of its U-Net, or through a new word.

Every way has the U-Net's own loss; what differs is which numbers may move.   DreamBooth (Ruiz et al. 2023,
arXiv:2208.12242) adds the loss on sounds that the model itself made of the class before it learned: they hold it to
what it knew (prior preservation, eq. 2).   B batch, n class sounds, D embedding width.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as nnf

from audioldm.adapters.adapter import Adapter, attach, defaults, learned, start
from audioldm.adapters.files import write
from audioldm.adapters.words import Words, attach_words, check_word, start_rows
from audioldm.batch import Condition, LatentBatch, choose_rows
from audioldm.control.micro import MicroControl
from audioldm.datasets.draws import generator
from audioldm.errors import AudioLDMError
from audioldm.paths import staged
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.training.latent_diffusion import LatentDiffusion, Streams
from audioldm.training.module import Terms


class OfModel(LatentDiffusion):
    """The U-Net, schedule, prediction, scaling factor and heads of a loaded model; a checkpoint holds what is trained.

    ``model`` is what ``AudioLDM.from_pretrained`` opens; ``prompt`` what all of the sounds are called, if anything.
    """

    recordable = False
    file = "adapter.safetensors"

    def __init__(self, *, model: str | None, prompt: str | None, **settings: Any) -> None:
        pipe = AudioLDM.from_pretrained(model)
        empty, empty_tokens, streams = empty_prompt(pipe)
        settings |= {"prediction": pipe.prediction, "scaling_factor": pipe.vae.config.scaling_factor}
        super().__init__(pipe.unet, pipe.schedule, empty=empty, empty_tokens=empty_tokens, **settings)
        self.pipe, self.prompt, self.model, self.streams = pipe, prompt, model, streams
        self.strict_loading = False
        self.unet.requires_grad_(False)
        known = next((one for one in pipe.controls if isinstance(one, MicroControl)), None)
        if known is not None:
            self.micro = known.net
        elif self.micro is not None:
            self.pipe = replace(pipe, controls=(MicroControl(self.micro, {}),))

    def base(self, *parts: str) -> dict[str, str]:
        """sha256 of the weights that are learned upon."""
        hashes = {part: self.pipe.hashes[part] for part in parts if part in self.pipe.hashes}
        return hashes or dict(self.pipe.hashes)

    def about(self) -> dict[str, str]:
        return {"model": self.pipe.name, "prompt": self.prompt or "", "batches": str(self.batch_count)}

    def hint(self, folder: Path) -> str:
        """The command that makes a sound with what was learned."""
        file = folder / self.file
        model = f" -m {self.model}" if self.model else ""
        use = f"{model} --adapter {file}" if file.exists() else f" -m {folder}"
        return f'audioldm generate "{self.prompt or "..."}"{use}'

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out what is frozen: it lies in the model."""
        frozen = {name for name, value in self.named_parameters() if not value.requires_grad}
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k not in frozen}


def empty_prompt(pipe: AudioLDM) -> tuple[Tensor, Tensor | None, Streams | None]:
    """CLAP's vector (D,) and the tokens (L, E) of the empty prompt; zeros (1,) and None for what the U-Net reads not.

    Beside them how two sequences lie in those tokens: the first one's length, which is the same for every prompt (what
    AudioLDM 2's GPT-2 generates), and both widths.
    """
    with torch.no_grad():
        empty = pipe.encode_text([""])
    film = torch.zeros(1) if empty.film is None else empty.film[0]
    if empty.tokens is None:
        return film, None, None
    second = empty.tokens2
    streams = None if second is None else (*empty.tokens.shape[1:], second.shape[2])
    return film, real_tokens(empty), streams


def real_tokens(condition: Condition) -> Tensor:
    """The tokens (L, E) of a condition of one row that are not masked; a second sequence follows the first.

    The narrower one is filled with zeros; ``LatentDiffusion.streams`` takes them apart again.
    """
    parts = []
    for tokens, mask in ((condition.tokens, condition.mask), (condition.tokens2, condition.mask2)):
        if tokens is not None:
            parts.append(tokens[0] if mask is None else tokens[0][mask[0].bool()])
    width = max(part.shape[1] for part in parts)
    return torch.cat([nnf.pad(part, (0, width - part.shape[1])) for part in parts])


class FineTune(OfModel):
    """Trains an adapter of ``kind`` (lora, loha, lokr, dora), or with "full" the U-Net itself.

    ``targets`` are patterns of layer names; None takes the linear layers, and with ``convolutions`` those too (a LoRA
    is then a LoCon).   ``prior`` {prompt, clips, weight} adds the class loss of DreamBooth, on ``clips`` sounds of its
    prompt, which the model makes first.   ``begin`` is an adapter to train further instead of a new one.
    """

    def __init__(
        self,
        *,
        kind: str = "lora",
        rank: int = 8,
        alpha: float | None = None,
        targets: Sequence[str] | None = None,
        convolutions: bool = False,
        prior: dict[str, Any] | None = None,
        begin: Adapter | None = None,
        run_dir: str = "runs/personal",
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.kind, self.prior, self.run_dir = kind, Prior(**prior) if prior else None, Path(run_dir)
        self.adapter: Adapter | None = None
        if kind == "full":
            self.unet.requires_grad_(True)
        elif {"micro", "learned_variance"} & {name for name, value in settings.items() if value}:
            wrong = f"kind={kind} leaves the U-Net as it is."
            raise AudioLDMError(wrong, "Use task.kind=full for micro and variances.")
        else:
            layers = tuple(targets) if targets else defaults(self.unet, convolutions=convolutions)
            about: Any = {"rank": rank, "targets": layers, "alpha": alpha}
            self.adapter = begin or start(self.unet, kind, generator=generator(self.seed, 0, 0), **about)
            attach(self.unet, self.adapter)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if self.prior is not None:
            path = self.run_dir / "prior.safetensors"
            self.prior.fill(self.pipe, path, seed=self.seed, begun=self.batch_count > 0)

    def training_step(self, batch: LatentBatch, index: int) -> Terms:
        """The U-Net's own loss on the sounds, plus ``weight`` times that on as many of the class (eq. 2)."""
        rng = self.batch_generator()
        terms = self.losses(batch, rng, drop=self.drop)
        if self.prior is None:
            return terms
        of_class = self.prior.batch(len(batch.mean), rng, self.scaling_factor, self.device)
        prior = self.losses(of_class, rng, drop=self.drop)["loss"]
        return {**terms, "loss": terms["loss"] + self.prior.weight * prior, "prior": prior.detach()}

    def write(self, folder: Path) -> None:
        if self.adapter is None:
            self.pipe.about["personal"] = self.about()
            self.pipe.save_pretrained(folder)
            return
        adapter = learned(self.unet, self.adapter)
        adapter.base.update(self.base("unet"))
        adapter.about.update(self.about())
        write(folder / self.file, adapter)


class Prior:
    """Sounds of a class as the model makes them before it learns: ``clips`` scaled latents (n, C, T, F) of a prompt."""

    def __init__(
        self, prompt: str, *, clips: int = 16, weight: float = 1.0, guidance: float | None = None
    ) -> None:
        self.prompt, self.clips, self.weight, self.guidance = prompt, clips, weight, guidance
        self.latents, self.condition = torch.empty(0), Condition()

    @torch.no_grad()
    def fill(self, pipe: AudioLDM, path: Path, *, seed: int, begun: bool) -> None:
        """Read the sounds that an earlier start of this run made, or make them and keep them in ``path``."""
        self.condition, empty = pipe.encode_text([self.prompt]), pipe.encode_text([""])
        defaults = vars(pipe.defaults.merged(guidance=self.guidance))
        settings = {name: defaults[name] for name in ("seconds", "steps", "sampler", "grid", "guidance")}
        identity = {**settings, "prompt": self.prompt, "clips": self.clips, "seed": seed, **pipe.hashes}

        def sampled() -> dict[str, Tensor]:
            training, seeds = pipe.unet.training, range(seed, seed + self.clips)
            pipe.unet.eval()
            latents = [pipe.sample(self.condition, empty, seeds=[one], **settings).cpu() for one in seeds]
            pipe.unet.train(training)
            return {"latents": torch.cat(latents).contiguous()}

        self.latents = kept(path, identity, sampled, begun=begun)["latents"]

    def batch(self, rows: int, rng: torch.Generator, scale: float, device: torch.device) -> LatentBatch:
        """``rows`` of them by chance, unscaled, as a batch."""
        pick = torch.randint(len(self.latents), (rows,), generator=rng, device=rng.device).cpu()
        mean = (self.latents[pick] / scale).to(device)
        condition = self.condition.to(device)
        film = mean.new_zeros(rows, 1) if condition.film is None else condition.film.expand(rows, -1)
        batch = LatentBatch(mean, torch.zeros_like(mean), film, film)
        if condition.tokens is None:
            return batch
        tokens = real_tokens(condition).expand(rows, -1, -1)
        return replace(batch, tokens=tokens, mask=tokens.new_ones(tokens.shape[:2], dtype=torch.long))


def kept(
    path: Path, identity: dict[str, Any], make: Callable[[], dict[str, Tensor]], *, begun: bool
) -> dict[str, Tensor]:
    """What a model makes before it changes, stored in ``path``, or what an earlier start of this run stored there.

    Every process makes the same.   Raises AudioLDMError where the run has ``begun`` and the file is of another.
    """
    about, known = {key: str(value) for key, value in identity.items()}, None
    if path.exists():
        with safe_open(path, "pt") as file:
            known = file.metadata()
    if known != about:
        if begun:
            wrong = f"{path} does not hold what this run began with, and the model has changed."
            raise AudioLDMError(wrong, "Begin again with --fresh.")
        with staged(path) as stage:
            save_file(make(), stage, metadata=about)
    return load_file(path)


class TextualInversion(OfModel):
    """Trains the rows of a new ``word``; U-Net, text tower and every other word stay as they are.

    Each sound is called by one of ``templates`` with the word in it, so that the word and not a sentence learns.
    ``start`` names words near the sound, whose mean the ``vectors`` rows begin at.
    """

    def __init__(self, *, word: str, vectors: int, start: str, templates: list[str], **settings: Any) -> None:
        super().__init__(**settings)
        check_word(word)
        if self.empty_tokens is not None:
            raise AudioLDMError(f"{self.pipe.name} does not read CLAP's vector.", "Use a model that does.")
        if vectors < 1 or not templates or not all("{}" in text for text in templates):
            wrong = f"vectors={vectors}, templates={list(templates)}."
            raise AudioLDMError(wrong, "Use 1 or more, and {} where the word goes.")
        self.word = self.prompt = word
        self.templates = [text.format(word) for text in templates]
        self.words = Words(word, start_rows(self.pipe.clap, start, vectors))
        self.clap = self.pipe.clap.requires_grad_(False)
        [self.rows] = attach_words(self.clap, self.words)

    def condition(self, batch: LatentBatch, rng: torch.Generator, *, drop: float) -> Condition:
        """The word in a sentence by chance, through the frozen text tower."""
        rows = len(batch.mean)
        pick = torch.randint(len(self.templates), (rows,), generator=rng, device=rng.device)
        film = self.clap.embed_text([self.templates[i] for i in pick.tolist()])
        dropped = self.bernoulli(drop, rows, rng)
        return choose_rows(dropped, Condition(film=self.empty[None]), Condition(film=film))

    def configure_optimizers(self) -> Any:
        """AdamW without decay, which would pull the rows to 0, where no word is."""
        return self.optimise([self.rows], decay=0.0)

    def write(self, folder: Path) -> None:
        base = self.base("unet", "text_encoder")
        write(folder / self.file, Words(self.word, self.rows.detach().cpu(), base, self.about()))
