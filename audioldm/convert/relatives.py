"""AudioLDM 2's diffusers folders and Tango's own: relatives that tell their U-Net token sequences."""

from pathlib import Path

from transformers import ClapFeatureExtractor, ClapProcessor

from audioldm.components import Components, Sampling
from audioldm.convert import build, tango
from audioldm.convert.folder import load_any_tokenizer, load_published, load_t5_tokenizer
from audioldm.convert.published import SUCCESSORS, Choices, obstacle, open_parts, spec_of, words_of
from audioldm.diffusion.schedule import scaled_linear
from audioldm.errors import AudioLDMError
from audioldm.nets.clap import NoClap
from audioldm.nets.folder import read_json, sha256
from audioldm.nets.generated import LENGTH, GeneratedText
from audioldm.nets.pretrained_clap import PretrainedClap
from audioldm.nets.t5 import T5Text
from audioldm.nets.vae import stride_of

TANGO = Sampling(sampler="ddpm", grid="leading", guidance=3.0)
"""How Tango's own code samples: diffusers' DDPMScheduler."""
TANGO_LONGEST = 512
"""tokens of a prompt"""
TANGO_LICENCE = "research, non-commercial"
TANGO_NOTICE = "The published Tango weights are for research, not for commercial use; see their model card."


def open_audioldm2(folder: Path, choices: Choices) -> Components:
    """The pipeline of an ``AudioLDM2Pipeline``; ``heads="as-published"`` also fills up texts as that pipeline does."""
    if (kind := name_of(folder / "text_encoder_2")) != "T5EncoderModel":
        raise AudioLDMError(
            f"{folder} reads its prompt with a {kind}: it speaks text, from phonemes.",
            "Known of AudioLDM 2: those with a T5EncoderModel (sound and music).",
        )
    extractor = ClapFeatureExtractor.from_pretrained(folder / "feature_extractor", local_files_only=True)
    processor = ClapProcessor(extractor, load_any_tokenizer(folder / "tokenizer"))
    clap = PretrainedClap.from_clap(load_published(folder / "text_encoder"), processor)  # type: ignore[arg-type]
    tokenizer = load_t5_tokenizer(folder / "tokenizer_2")
    longest = min(tokenizer.model_max_length, TANGO_LONGEST)
    gpt = load_published(folder / "language_model")
    words = GeneratedText(
        clap,
        T5Text(load_published(folder / "text_encoder_2"), tokenizer, longest=longest),  # type: ignore[arg-type]
        load_published(folder / "projection_model"),  # type: ignore[arg-type]
        gpt,  # type: ignore[arg-type]
        length=getattr(gpt.config, "max_new_tokens", None) or LENGTH,  # type: ignore[union-attr]
        alone=choices.heads == "original",
    )
    return open_parts(folder, choices, clap, words, SUCCESSORS)


def name_of(folder: Path) -> str:
    """The class that a component's configuration names."""
    config = read_json(folder / "config.json")
    return str(config.get("_class_name") or next(iter(config.get("architectures") or []), None))


def open_tango(folder: Path, choices: Choices) -> Components:
    """The pipeline of Tango's folder, without CLAP; FLAN-T5's tokenizer is ``tokenizer_2`` inside, or the hub's."""
    if missing := [name for name in tango.FILES if not (folder / name).is_file()]:
        raise AudioLDMError(
            f"{folder / missing[0]} is missing.", f"Tango needs {', '.join(tango.FILES)} in one folder."
        )
    found = tango.read_tango(folder)
    main = folder / tango.MAIN
    if (why := obstacle(found, main)) is not None:
        raise why
    shape = found.unet_shape
    heads = None if shape is None else tango.heads(shape.channels)
    vae, vocoder = build.vae_of(found, folder / tango.VAE), build.vocoder_of(found, folder / tango.VAE)
    clap = NoClap()
    return Components(
        build.unet_of(found, main, heads=heads),
        vae,
        vocoder,
        clap,
        spec_of(vocoder, stride_of(vae), vae.config.latent_channels),
        token_encoder=words_of(found, main, choices, clap, longest=TANGO_LONGEST),
        schedule=scaled_linear(0.00085, 0.012),
        prediction="v",
        name=folder.name,
        defaults=TANGO,
        about={"source": str(folder), "licence": TANGO_LICENCE, "scaling_factor": found.scale},
        hashes={name: sha256(folder / name) for name in (tango.MAIN, tango.VAE)},
        notice=TANGO_NOTICE,
    )
