"""The published CLAP: transformers' two towers behind the calls of ``nets.clap``.

Converted AudioLDM folders hold the text tower only; such a CLAP cannot hear.   B batch, N samples, D embedding width.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import torchaudio.functional as taf
from torch import Tensor, nn
from torch.nn import functional as nnf
from transformers import (
    ClapAudioModelWithProjection,
    ClapFeatureExtractor,
    ClapModel,
    ClapProcessor,
    ClapTextModelWithProjection,
    PreTrainedTokenizerBase,
)

from audioldm.errors import AudioLDMError


class PretrainedClap(nn.Module):
    """A text tower with its tokenizer and, where there is one, an audio tower with its feature extractor."""

    def __init__(
        self,
        text_encoder: ClapTextModelWithProjection,
        tokenizer: PreTrainedTokenizerBase,
        audio_encoder: ClapAudioModelWithProjection | None = None,
        extractor: ClapFeatureExtractor | None = None,
    ) -> None:
        super().__init__()
        self.text_encoder, self.tokenizer = text_encoder, tokenizer
        self.audio_encoder = audio_encoder
        self.extractor = extractor or (published_extractor() if audio_encoder is not None else None)
        self.dim = text_encoder.config.projection_dim
        config = text_encoder.config
        self.max_tokens = config.max_position_embeddings - (config.pad_token_id or 0) - 1

    @classmethod
    def from_clap(cls, model: ClapModel, processor: ClapProcessor) -> "PretrainedClap":
        """The towers of a whole ClapModel; its logit scales are not needed for unit vectors."""
        from audioldm.convert.clap import towers

        text, audio = towers(model.state_dict())
        parts = (
            ClapTextModelWithProjection(model.config.text_config),
            ClapAudioModelWithProjection(model.config.audio_config),
        )
        for part, state in zip(parts, (text, audio), strict=True):
            part.load_state_dict(state, strict=True)
        return cls(parts[0], processor.tokenizer, parts[1], processor.feature_extractor).eval()

    @property
    def rate(self) -> int:
        """Sampling rate of what the audio tower hears."""
        return 48000 if self.extractor is None else int(self.extractor.sampling_rate)

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """Prompts to unit vectors (B, D). Padded to the longest, not to 512: attention is masked, the result equal."""
        tokens = self.tokenizer(
            list(prompts), padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt"
        ).to(self.text_encoder.device)
        out = self.text_encoder(tokens.input_ids, attention_mask=tokens.attention_mask)
        return nnf.normalize(out.text_embeds, dim=-1)

    def embed_audio(self, wave: Tensor, rate: int = 16000) -> Tensor:
        """Waveforms (B, 1, N), resampled to CLAP's rate, to unit vectors (B, D); the first 10 s are heard.

        LAION's code takes 10 s from a random place of a longer sound; here the same sound has the same embedding.
        """
        if self.audio_encoder is None or self.extractor is None:
            raise AudioLDMError(
                "This model has no audio tower: its CLAP can read text but not hear sound.",
                "Use the original .ckpt, which has both towers, or a folder exported from it.",
            )
        wave = taf.resample(wave, rate, self.rate) if rate != self.rate else wave
        wave = wave[:, 0, : self.extractor.nb_max_samples]
        features = self.extractor(
            list(wave.cpu().numpy()), sampling_rate=self.rate, return_tensors="pt"
        ).input_features
        out = self.audio_encoder(features.to(self.audio_encoder.device, self.audio_encoder.dtype))
        return nnf.normalize(out.audio_embeds, dim=-1)

    def save(self, folder: Path | str, *, dtype: torch.dtype | None = None) -> None:
        """Write ``text_encoder``, ``tokenizer`` and, if there is one, ``audio_encoder`` below ``folder``."""
        from audioldm.nets.folder import save_component

        save_component(self.text_encoder, Path(folder) / "text_encoder", dtype=dtype)
        self.tokenizer.save_pretrained(Path(folder) / "tokenizer")
        if self.audio_encoder is not None and self.extractor is not None:
            save_component(self.audio_encoder, Path(folder) / "audio_encoder", dtype=dtype)
            self.extractor.save_pretrained(Path(folder) / "audio_encoder")


def published_extractor() -> ClapFeatureExtractor:
    """The front end of LAION's unfused CLAPs: 48 kHz, 10 s, 64 slaney mels of 50 to 14000 Hz, short sounds repeated."""
    return ClapFeatureExtractor(
        feature_size=64,
        sampling_rate=48000,
        hop_length=480,
        max_length_s=10,
        fft_window_size=1024,
        frequency_min=50,
        frequency_max=14000,
        truncation="rand_trunc",
        padding="repeatpad",
    )
