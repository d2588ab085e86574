"""Sound and pictures while a part learns, always of the same clips, prompts and noise.   N samples, T frames."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import soundfile as sf
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from audioldm.components import Sampling
from audioldm.convert.model import spec_of
from audioldm.convert.reference import open_part
from audioldm.errors import AudioLDMError
from audioldm.nets.vae import stride_of
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.signal.mel import log_mel
from audioldm.training.ema import averaged


@dataclass(eq=False)
class Preview(L.Callback):
    """Every validation, what the module's ``preview`` gives for the first held-out batch ("wave/..." or "mel/...")."""

    folder: str | Path
    rate: int
    count: int = 2

    def on_validation_batch_end(
        self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, index: int, loader: int = 0
    ) -> None:
        """Files and TensorBoard; every process computes, because a split net needs all."""
        if index or trainer.sanity_checking or not hasattr(module, "preview"):
            return
        for name, value in module.preview(batch).items():
            for i, item in enumerate(value[: self.count].float().cpu() if trainer.is_global_zero else ()):
                show(trainer, Path(self.folder), f"{name}/{i}", item[0], module.batch_count, self.rate)


class Listen(L.Callback):
    """Every ``every`` batches, the U-Net's sound of fixed ``prompts`` and noise, through parts of other runs.

    The averaged weights are used where there is an average.   ``parts`` are references by kind: vae, vocoder, clap, and
    text_encoder for a U-Net that attends to tokens.   ``sampling``: seconds, steps, guidance.   Without parts they are
    those of the model that is trained further, which is heard before it learns, too; its prompts are the data's own.
    """

    def __init__(
        self, prompts: Sequence[str] | None = None, *, parts: Mapping[Any, str] | None = None, every: int, folder: str,
        seed: int = 0, **sampling: Any,
    ) -> None:  # fmt: skip
        self.prompts, self.every, self.folder, self.seed = prompts, every, Path(folder), seed
        self.sampling = {"steps": 25, "guidance": 3.0, "sampler": "dpmpp_2m", "grid": "trailing", **sampling}
        Sampling().merged(**self.sampling)  # refused now
        try:
            self.parts: dict[str, Any] = {kind: open_part(ref, kind) for kind, ref in (parts or {}).items()}
        except AudioLDMError as error:
            hint = "Previews need it: train it first, or use callbacks.listen=null."
            raise AudioLDMError(error.message, hint) from None

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        if not (self.parts or module.batch_count):
            self.on_train_batch_end(trainer, module)

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, *args: Any) -> None:
        if module.batch_count % self.every == 0:
            with averaged(trainer, module):
                self.listen(trainer, module)
            module.unet.train()

    def listen(self, trainer: L.Trainer, module: Any) -> None:
        pipe: Any = None if self.parts else module.pipe
        prompts = self.prompts or trainer.datamodule.captions  # type: ignore[attr-defined]
        if self.parts:
            vae, vocoder = self.parts["vae"], self.parts["vocoder"]
            vae.register_to_config(scaling_factor=module.scaling_factor)
            spec = spec_of(vocoder, stride_of(vae), vae.config.latent_channels)
            about = {"schedule": module.schedule, "prediction": module.prediction}
            tokens, nets = self.parts.get("text_encoder"), (module.unet, vae, vocoder, self.parts["clap"])
            pipe = AudioLDM(*nets, spec, token_encoder=tokens, **about)
        pipe, seeds = pipe.to(module.device), [self.seed + i for i in range(len(prompts))]
        # in the training's own precision; its compiled blocks would be compiled anew for these shapes
        with trainer.precision_plugin.forward_context(), torch.compiler.set_stance("force_eager"):
            waves = pipe(prompts, seeds=seeds, **self.sampling)
        for prompt, wave in zip(prompts, waves if trainer.is_global_zero else (), strict=False):
            name, mel = prompt.replace(" ", "_")[:80] or "nothing", log_mel(wave[None, None], pipe.spec)[0, 0]
            show(trainer, self.folder, f"wave/{name}", wave, module.batch_count, pipe.spec.rate)
            show(trainer, self.folder, f"mel/{name}", mel, module.batch_count)


def show(trainer: L.Trainer, folder: Path, name: str, item: Tensor, batch: int, rate: int = 0) -> None:
    """A wave (N,) at ``rate`` as WAV, a log-mel (T, F) as PNG, in ``folder``/batch-N/ and in TensorBoard."""
    path = folder / f"batch-{batch:09d}" / name.replace("/", "_")
    path.parent.mkdir(parents=True, exist_ok=True)
    boards: Any = [log.experiment for log in trainer.loggers if isinstance(log, TensorBoardLogger)]
    if name.startswith("wave/"):
        sf.write(path.with_suffix(".wav"), (wave := item.clamp(-1, 1)).numpy(), rate)
        for board in boards:
            board.add_audio(name, wave, batch, rate)
    else:
        from matplotlib.image import imsave

        # time to the right, frequency upwards, -11.5 black, 2 white
        picture = ((item.T.flip(0) + 11.5) / 13.5).clamp(0, 1).float()
        imsave(path.with_suffix(".png"), picture.numpy(), cmap="magma", vmin=0, vmax=1)
        for board in boards:
            board.add_image(name, picture[None], batch)
