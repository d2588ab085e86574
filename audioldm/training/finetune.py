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
from audioldm.control.controls import MicroControl
from audioldm.datasets.draws import generator
from audioldm.errors import AudioLDMError
from audioldm.paths import staged
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.training.latent_diffusion import LatentDiffusion
from audioldm.training.module import Terms


class OfModel(LatentDiffusion):
    """Of ``model``, a reference: U-Net, schedule, prediction, scaling, heads.   A checkpoint holds what is trained;
    ``prompt`` is what all of the sounds are called, if anything.
    """

    recordable = False
    file = "adapter.safetensors"

    def __init__(self, *, model: str | None, prompt: str | None, **settings: Any) -> None:
        pipe = AudioLDM.from_pretrained(model)
        with torch.no_grad():
            nothing = pipe.encode_text([""])
        empty, tokens = vector_and_tokens(nothing)
        settings |= {"prediction": pipe.prediction, "scaling_factor": pipe.vae.config.scaling_factor}
        super().__init__(pipe.unet, pipe.schedule, empty=empty, empty_tokens=tokens, **settings)
        self.pipe, self.prompt, self.model, self.strict_loading = pipe, prompt, model, False
        if nothing.tokens is not None and nothing.tokens2 is not None:
            # the first one's length is the same for every prompt: what AudioLDM 2's GPT-2 generates
            self.streams = (*nothing.tokens.shape[1:], nothing.tokens2.shape[2])
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
        file, model = folder / self.file, f" -m {self.model}" if self.model else ""
        use = f"{model} --adapter {file}" if file.exists() else f" -m {folder}"
        return f'audioldm generate "{self.prompt or "..."}"{use}'

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out what is frozen: it lies in the model."""
        frozen = {name for name, value in self.named_parameters() if not value.requires_grad}
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k not in frozen}


def vector_and_tokens(condition: Condition) -> tuple[Tensor, Tensor | None]:
    """CLAP's vector (D,) of a condition of one row, or zeros (1,); the tokens (L, E) that are not masked, or None.

    A second sequence follows the first, the narrower one filled with zeros; ``LatentDiffusion.streams`` takes them
    apart again.
    """
    film = torch.zeros(1) if condition.film is None else condition.film[0]
    pairs = (condition.tokens, condition.mask), (condition.tokens2, condition.mask2)
    parts = [t[0] if mask is None else t[0][mask[0].bool()] for t, mask in pairs if t is not None]
    width = max((part.shape[1] for part in parts), default=0)
    return film, torch.cat([nnf.pad(part, (0, width - part.shape[1])) for part in parts]) if parts else None


class FineTune(OfModel):
    """Trains an adapter of ``kind`` (lora, loha, lokr, dora), or with "full" the U-Net itself.

    ``targets`` are patterns of layer names; None takes the linear layers, and with ``convolutions`` those too (a LoRA
    is then a LoCon).   ``prior`` {prompt, clips, weight} adds the class loss of DreamBooth, on ``clips`` sounds of its
    prompt, which the model makes first.   ``begin`` is an adapter to train further instead of a new one.
    """

    def __init__(
        self, *, kind: str = "lora", rank: int = 8, alpha: float | None = None, targets: Sequence[str] | None = None,
        convolutions: bool = False, prior: dict[str, Any] | None = None, begin: Adapter | None = None,
        run_dir: str = "runs/personal", **settings: Any,
    ) -> None:  # fmt: skip
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
        """Into ``folder`` the adapter, or the whole model."""
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

    def __init__(self, prompt: str, *, clips: int = 16, weight: float = 1.0) -> None:
        self.prompt, self.clips, self.weight = prompt, clips, weight
        self.latents, self.condition = torch.empty(0), Condition()

    @torch.no_grad()
    def fill(self, pipe: AudioLDM, path: Path, *, seed: int, begun: bool) -> None:
        """Read the sounds that an earlier start of this run made, or make them and keep them in ``path``."""
        self.condition, empty = pipe.encode_text([self.prompt]), pipe.encode_text([""])
        names = ("seconds", "steps", "sampler", "grid", "guidance")
        settings = {name: getattr(pipe.defaults, name) for name in names}

        def sampled() -> dict[str, Tensor]:
            training, seeds = pipe.unet.training, range(seed, seed + self.clips)
            pipe.unet.eval()
            latents = [pipe.sample(self.condition, empty, seeds=[one], **settings).cpu() for one in seeds]
            pipe.unet.train(training)
            return {"latents": torch.cat(latents).contiguous()}

        identity = {**settings, "prompt": self.prompt, "clips": self.clips, "seed": seed, **pipe.hashes}
        self.latents = kept(path, identity, sampled, begun=begun)["latents"]

    def batch(self, rows: int, rng: torch.Generator, scale: float, device: torch.device) -> LatentBatch:
        """``rows`` of them by chance, unscaled, as a batch."""
        pick = torch.randint(len(self.latents), (rows,), generator=rng, device=rng.device).cpu()
        mean = (self.latents[pick] / scale).to(device)
        film, tokens = vector_and_tokens(self.condition.to(device))
        film = film.to(device).expand(rows, -1)
        batch = LatentBatch(mean, torch.zeros_like(mean), film, film)
        if tokens is None:
            return batch
        mask = torch.ones(rows, len(tokens), dtype=torch.long, device=device)
        return replace(batch, tokens=tokens.expand(rows, -1, -1), mask=mask)


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
    """Trains the ``vectors`` rows of a new ``word``, which begin at the mean of the words of ``start``; all else stays.

    Each sound is called by one of ``templates`` with the word in it, so that the word and not a sentence learns.
    """

    def __init__(self, *, word: str, vectors: int, start: str, templates: list[str], **settings: Any) -> None:
        if {"{}" in text for text in templates} != {True}:
            raise AudioLDMError(f"templates={templates}.", "Write {} in each, where the word goes.")
        super().__init__(**settings)
        check_word(word)
        if self.empty_tokens is not None:
            raise AudioLDMError(f"{self.pipe.name} does not read CLAP's vector.", "Use a model that does.")
        self.word = self.prompt = word
        self.templates = [text.replace("{}", word) for text in templates]
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
