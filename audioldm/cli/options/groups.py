"""The groups of options that several commands share: prompts, sampling, guidance, sounds, results, the model."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from audioldm.cli.console import say, waiting, warned
from audioldm.cli.options import SHARE, Between, DryRun, Force, Group, option, setting, weighted
from audioldm.cli.startup import later
from audioldm.errors import AudioLDMError
from audioldm.paths import find
from audioldm.pipeline.spans import Span, parse_schedule

with later():
    import diffusers
    import torch
    import transformers

    from audioldm import engines
    from audioldm.control import controls, maps, nets
    from audioldm.datasets import decode
    from audioldm.diffusion import grids, samplers, table
    from audioldm.nets import clap, prior
    from audioldm.pipeline import audioldm, conditions
    from audioldm.pipeline import guidance as pipeline_guidance


Pipe: TypeAlias = "audioldm.AudioLDM"
NAMED = "NAME[:OPTION=N,...]"
Pair = tuple[float, float] | None


def model_option(help: str = "Folder, hub id (owner/name[@revision]) or original .ckpt.") -> Any:
    return option(None, f"{help}  [default: the embedded model]", "-m", "--model", "REF")


DEVICE = "cpu, cuda, cuda:N or mps.  [default: cuda where it is]"


class PublishedOptions(Group):
    heads: Literal["original", "as-published"] = setting("original", "Those of training, or a folder's 8.")
    weights: Literal["ema", "raw"] = setting("ema", "Of a .ckpt: its moving average, or its weights.")
    tokenizer: Path | None = setting(None, "Vocabulary files for a .ckpt; T5's in tokenizer_2/.", "FOLDER")


class ModelOptions(Group):
    panel = "Model and device"
    model: str | None = model_option()
    adapter: list[str] = option([], "LoRA, learned word, ... of personal/ recipes.", "FILE[:WEIGHT]")
    device: str = option("auto", DEVICE)
    mode: Literal["exact", "fast"] = option("exact", "fast is bfloat16: docs/speed.md.")
    dtype: Literal["float32", "bfloat16", "float16"] | None = setting(None, "Number type of the networks.")
    published: PublishedOptions = PublishedOptions()

    def load(self, model: str | None = None) -> Pipe:
        """The pipeline of ``model`` as it is, or of the model asked for with its adapters."""
        choices = {"mode": self.mode, **vars(self.published)}
        pipe = load(model or self.model, device=self.device, dtype=self.dtype, **choices)
        if model is None:
            with warned():
                pipe.adapt(*self.adapter)
        return pipe


def load(model: str | None, *, device: str, dtype: str | None = None, **choices: Any) -> Pipe:
    """The pipeline of ``model``, or of the embedded one for None; says the licence of weights that are imported."""
    check_device(device)
    with waiting("loading torch and the model"):
        for library in (diffusers, transformers):
            library.utils.logging.set_verbosity_error()  # their advice is for programmers
            library.utils.logging.disable_progress_bar()
        place = {"auto": "cuda" if torch.cuda.is_available() else "cpu"}.get(device, device)
        if place == "cuda" and "LOCAL_RANK" in os.environ:  # torchrun's processes take a GPU each
            place = f"cuda:{os.environ['LOCAL_RANK']}"
        if place == "cpu":
            engines.keep_freed_memory()
        with warned():
            kind = getattr(torch, dtype) if dtype else None
            pipe = audioldm.AudioLDM.from_pretrained(model, device=place, dtype=kind, **choices)
        if pipe.notice:
            say(f"{pipe.name}: {pipe.notice}")
        return pipe


def check_device(device: str) -> None:
    """Raise AudioLDMError for a device that torch does not know or have."""
    try:
        torch.empty(1, device="cpu" if device == "auto" else device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        what = f"device={device!r} cannot be used: " + str(error).partition("\n")[0].rstrip(".")[:120]
        raise AudioLDMError(f"{what}.", "Use cpu, cuda, cuda:N or mps.") from None


class Steps(Group):
    """How a latent is sampled; None is the model's own."""

    panel = "Sampling"
    steps: int | None = option(None, "Denoising steps.")
    sampler: str | None = option(None, "Such as ddim; see audioldm samplers.", NAMED)
    grid: str | None = setting(None, "Noise levels to visit.", NAMED)
    refine_phase: int | None = setting(None, "Rounds that bring the sound to its mel.")

    def check(self, device: str) -> None:
        """Refuse unknown samplers and grids, and a device that is not here; imports torch, but reads no weights."""
        if self.sampler is not None:
            table.choose(samplers.SAMPLERS, self.sampler, "sampler")
        if self.grid is not None:
            table.choose(grids.GRIDS, self.grid, "grid")
        check_device(device)


class Sampling(Steps):
    seconds: float | None = option(None, "Length of each clip, up to 600.")
    retry_silent: int | None = setting(None, "How often a silent clip is sampled again.")


class Guidance(Group):
    panel = "Guidance"
    guidance: float | None = option(None, "How strictly to follow the prompt; 1 is no guidance.")
    negative: str = option("", "What not to hear.", "TEXT")
    guidance_method: str = setting("classifier_free", "How the U-Net's two answers are combined.", NAMED)
    guidance_interval: Pair = setting(None, "Guide only at these noise levels.", "LOW,HIGH", Between(0))
    guidance_threshold: Pair = setting(None, "Cut |x0| there; 0.995,3 is mild.", "QUANTILE,FLOOR", Between(0))
    guidance_extra_prompts: list[str] = setting([], "More prompts; below 0 avoids one.", "TEXT[:WEIGHT]")
    guidance_weak: str | None = setting(None, "Autoguidance: steer away from this worse model.", "FOLDER")
    refiner: str | None = option(None, "For the lowest noise levels: sdxl/refiner.", "FOLDER", hidden=True)
    refine: float = option(0.2, "The refiner's share of time.", Between(0, 1, above=True), hidden=True)
    guidance_clap: float = setting(0.0, "Strength of the CLAP score's gradient, such as 30.", Between(0))
    guidance_classifier: Path | None = setting(None, "What recipe embedded/classifier exported.", "FOLDER")
    guidance_class: str | None = setting(None, "The class to steer to; names promptless clips.", "NAME")
    guidance_classifier_scale: float = setting(1.0, "Of its gradient; 1 is Bayes' rule.", Between(0))

    def check(self, sampler: str | None) -> None:
        """Refuse what no run could use, before any weights are read; needs torch."""
        if (self.guidance_classifier is None) != (self.guidance_class is None):
            hint = "Give the classifier's folder and the name of one of its classes."
            raise AudioLDMError("guidance_classifier and guidance_class go together.", hint)
        self.config(None).check(sampler=sampler, scale=self.guidance)

    def config(self, model: ModelOptions | None) -> pipeline_guidance.GuidanceConfig:
        """The pipeline's GuidanceConfig; other models are loaded by ``model``, None leaves them out."""
        nets: dict[str, Any] = {}
        if model is not None:
            references = {"weak": self.guidance_weak, "refiner": self.refiner}
            nets = {name: model.load(place) for name, place in references.items() if place}
            if self.guidance_classifier is not None and self.guidance_class is not None:
                aim = self.guidance_classifier, self.guidance_class
                nets["classifier"] = pipeline_guidance.TargetClass.load(*aim)
        names = ("method", "interval", "threshold", "clap", "classifier_scale")
        numbers = {name: getattr(self, f"guidance_{name}") for name in names}
        pairs = (weighted(text, "guidance_extra_prompts", [1.0]) for text in self.guidance_extra_prompts)
        extra = tuple((text, weights[0]) for text, weights in pairs)
        return pipeline_guidance.GuidanceConfig(**numbers, extra_prompts=extra, refine=self.refine, **nets)


SEEDS = Between(0, 2**62 - 1)


class Takes(Group):
    panel = "Edit"
    n: int = option(1, "Clips of each prompt, or takes of the edit.", "-n", "--number", Between(1, 1_000_000))
    seed: int = option(0, "Seed of the first; the next ones have seed+1, seed+2, ...", SEEDS)
    schedule: str | None = setting(None, "Prompts over time instead of one.", '"0-5 rain; 5-12 thunder"')

    def spans(self, prompt: str | None) -> list[Span] | None:
        """The schedule, None without one; not beside a prompt."""
        if self.schedule is not None and prompt:
            raise AudioLDMError(f"prompt={prompt!r} and schedule were both given.", "Give one of them.")
        return None if self.schedule is None else parse_schedule(self.schedule)


class Prompts(Takes):
    panel = "Prompt"
    prompts: str | None = option(
        None, "Many: .txt (one a line), .csv or .jsonl with columns prompt, seed, seconds, steps, guidance, negative, "
        "audio_prompt, out; - is standard input.", "FILE",
    )  # fmt: skip
    interpolate_to: str | None = option(None, "To this prompt, by SHARE.  [default: 0.5]", "TEXT[:SHARE,...]")
    loop: bool = setting(False, "Let the end go over into the begin; whole latent frames long.")
    rerank: int = setting(1, "Make so many, keep what CLAP finds nearest to the prompt.", Between(1, 1000))
    batch_size: int = setting(1, "Clips made at once.", Between(1, 4096))

    def spans(self, prompt: str | None) -> list[Span] | None:
        spans = super().spans(prompt or self.prompts)
        if spans is not None and (self.interpolate_to is not None or self.rerank > 1):
            raise AudioLDMError("schedule does not go with --interpolate-to or rerank.", "Leave one out.")
        return spans

    def shares(self) -> tuple[str, list[float]]:
        """The second prompt and the places on the way to it; ("", [0.0]) without one."""
        if self.interpolate_to is None:
            return "", [0.0]
        return weighted(self.interpolate_to, "interpolate-to", [0.5], SHARE)


FORMATS = {
    "wav": ("WAV", "PCM_16"), "wav24": ("WAV", "PCM_24"), "wavfloat": ("WAV", "FLOAT"), "flac": ("FLAC", "PCM_16"),
    "flac24": ("FLAC", "PCM_24"), "mp3": ("MP3", "MPEG_LAYER_III"), "ogg": ("OGG", "VORBIS"), "m4a": ("", ""),
}  # fmt: skip
"""Name to libsndfile's format and width; m4a is ffmpeg's."""
Format = Literal["wav", "wav24", "wavfloat", "flac", "flac24", "mp3", "ogg", "m4a"]
UNWRITTEN = ("aif", "aiff", "aac", "au", "caf", "mp4", "oga", "opus", "w64", "webm", "wma")
"""endings of sounds that nothing here writes; a file or folder of such a name would be taken for one"""


def format_of(place: str | Path) -> str | None:
    """The format by the ending, or None.   Raises AudioLDMError for a sound that is not written."""
    ending = Path(place).suffix.lstrip(".").lower()
    if ending in UNWRITTEN:
        raise AudioLDMError(f"{place}: {ending} is not written.", f"Use {', '.join(FORMATS)}.")
    return ending if ending in FORMATS else None


class Output(Force, DryRun):
    panel = "Output"
    out: Path = option(Path("out"), "Folder, or for one clip a file such as rain.mp3.", "-o", "PATH")
    audio_format: Format | None = option(None, "Of the files.  [default: wav]", "--format", "|".join(FORMATS))
    normalize: bool = option(False, "Scale each clip to a true peak of -1 dB, not only down from above 0.")
    lufs: float | None = option(None, "Scale to this loudness, such as -23.", "LUFS", Between(-70, 0))
    as_json: bool = option(False, "Print JSON.", "--json", hidden=True)
    figure: bool = setting(True, "Draw waveform and log-mel of each clip as PNG.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.normalize and self.lufs is not None:
            raise AudioLDMError("--normalize and --lufs both say how loud.", "Give one of them.")

    @property
    def is_file(self) -> bool:
        return format_of(self.out) is not None and not self.out.is_dir()

    @property
    def folder(self) -> Path:
        return self.out.parent if self.is_file else self.out

    def alone(self, audio_format: str) -> Output:
        """The options that decide how a clip sounds; the rest as it is by default."""
        return Output(audio_format=audio_format, normalize=self.normalize, lufs=self.lufs)  # type: ignore[arg-type]


SHIPPED = Path("own")
AudioPrompt = tuple[Path, float]  # a sound file, and how much of the condition it is


class SoundConditions(Group):
    panel = "Conditioning on sound"
    audio_prompt: str | None = option(None, "Sound like this file, by SHARE.  [default: 0.5]", "FILE[:SHARE]")
    control: list[str] = option([], "Follow a sound, or a CSV of seconds,value.", "MAP=FILE[:SCALE]")
    control_net: list[Path] = setting([], "Net of a --control: control/t2i_adapter or controlnet.", "FOLDER")
    # nets of one recipe each, which says how
    ip_adapter: Path | None = option(None, "Attend to --audio-prompt.", "FOLDER", hidden=True)
    prior: Path | None = option(None, "Draw a sound's vector from the prompt.", "FOLDER", hidden=True)
    micro: list[str] = option([], "As if cut from such a clip.", "FACT=NUMBER", hidden=True)

    def check(self) -> list[maps.MapSource]:
        """The maps to follow, once it is sure that the files are there; imports torch only where there is any."""
        if self.ip_adapter is not None and self.audio_prompt is None:
            raise AudioLDMError("--ip-adapter has no sound to attend to.", "Give --audio-prompt FILE.")
        if self.control_net and not self.control:
            raise AudioLDMError("control_net has no map to read.", "Give --control MAP=FILE.")
        folders = dict.fromkeys((*self.control_net, self.ip_adapter), "control/t2i_adapter")
        for folder, recipe in (folders | {self.prior: "caption/prior"}).items():
            if folder not in (None, SHIPPED) and not folder.exists():
                raise AudioLDMError(f"{folder} is not there.", f"Train it: audioldm recipes {recipe}.")
        sources = [maps.MapSource.parse(text) for text in self.control]
        for source in sources:
            source.check()
        return sources

    def apply(self, pipe: Pipe, sources: list[maps.MapSource], seconds: float) -> Pipe:
        """``pipe`` under these conditions, for a clip of ``seconds``.   Raises AudioLDMError where one does not fit."""
        present = with_facts(pipe, controls.parse_facts(self.micro)) if self.micro else list(pipe.controls)
        if self.prior is not None:
            place = prior.SHIPPED if self.prior == SHIPPED else self.prior
            if not (place / "config.json").is_file():
                what = f"There is no prior in {place}."
                raise AudioLDMError(what, "Train one: audioldm train caption/prior.")
            pipe = replace(pipe, prior=clap.load_in_space(place, prior.Prior, pipe.clap, "caption/prior"))
        present += self.map_controls(pipe, sources, seconds)
        reference = read_audio_prompt(self.audio_prompt, alone=False)
        if self.ip_adapter is not None and reference is not None:
            present.append(ip_adapter(pipe, self.ip_adapter, *reference))
        return replace(pipe, controls=tuple(present))

    def map_controls(
        self, pipe: Pipe, sources: list[maps.MapSource], seconds: float
    ) -> list[controls.MapControl]:
        """Each map by the net that was named, else by the one that comes with the model.   Raises AudioLDMError."""
        asked, known, out = [source.name for source in sources], dict[str, Any](), list[controls.MapControl]()
        for folder in self.control_net:
            net = controls.load_net(folder)
            name = getattr(net.config, "map", "")
            if name in known:
                raise AudioLDMError(f"Two control_nets read {name}.", "Name one for each map.")
            known[name] = net
            if name in asked:
                warn_of_base(net, pipe, folder)
        others = f"; the control_net named reads {', '.join(filter(None, known))}" if known else ""
        for source in sources:
            net = known.get(source.name)
            if net is None and (place := controls.shipped(source.name, pipe.hashes.get("unet"))) is not None:
                net = controls.load_net(place)
            if net is None:
                hint = f"Train one (control/t2i_adapter data.map={source.name}) and --set control_net=FOLDER."
                raise AudioLDMError(f"No net reads {source.name} for {pipe.name}{others}.", hint)
            controls.check_fits(net, pipe.unet, pipe.spec, pipe.name)
            curve = source.curve(pipe.spec)
            length = len(curve) * pipe.spec.hop / pipe.spec.rate
            if abs(length - seconds) > 0.1:  # by more than a frame or so
                longer = f"what is after {seconds:.2f} s is not used"
                rest = longer if length > seconds else f"after {length:.2f} s nothing steers"
                lasts = f"lasts {length:.2f} s, the clip {seconds:.2f} s"
                say(f"control {source.name}={source.path} {lasts}: {rest}.")
            net = net.to(pipe.device, pipe.dtype)
            out.append(controls.MapControl(net, curve, pipe.spec, source.scale, str(source.path)))
        return out


def with_facts(pipe: Pipe, facts: dict[str, float]) -> list[Any]:
    """The model's controls, that of micro-conditioning with ``facts``."""
    kind, why = controls.MicroControl, f"{pipe.name} was not trained with micro-conditioning."
    if kind not in map(type, pipe.controls):
        raise AudioLDMError(why, "Train one: recipe sdxl/micro.")
    return [replace(one, facts=facts) if isinstance(one, kind) else one for one in pipe.controls]


def ip_adapter(pipe: Pipe, folder: Path, path: Path, scale: float) -> controls.AudioPromptControl:
    """Attention to the sound at ``path``, by the net in ``folder`` or the model's own."""
    place: Path | None = folder
    if folder == SHIPPED:
        place = controls.shipped(controls.IP_ADAPTER, pipe.hashes.get("unet"))
    if place is None:
        hint = "Train one: audioldm train control/ip_adapter."
        raise AudioLDMError(f"{pipe.name} has no net of its own for --ip-adapter.", hint)
    net = controls.load_net(place)
    if not isinstance(net, nets.IPAdapter):
        raise AudioLDMError(f"ip-adapter={folder} holds a {type(net).__name__}.", "Train control/ip_adapter.")
    vector = sound_embedding(pipe, path)
    controls.check_fits(net, pipe.unet, pipe.spec, pipe.name, dim=vector.shape[-1])
    warn_of_base(net, pipe, place)
    return controls.AudioPromptControl(net.to(pipe.device, pipe.dtype), vector, scale, str(path))


def warn_of_base(net: Any, pipe: Pipe, folder: Path) -> None:
    """One line where a net was trained with other weights than those that it is to steer."""
    base, unet = net.config.base, pipe.hashes.get("unet")
    if base and unet and base != unet:
        others = f"another U-Net ({base[:12]}...) than that of {pipe.name} ({unet[:12]}...)"
        say(f"{folder} was trained with {others}; it may not steer.")


def read_audio_prompt(text: str | None, *, alone: bool, place: str = "audio-prompt") -> AudioPrompt | None:
    """``FILE[:SHARE]``, once it is sure that the file is there; ``alone`` says that there is no text."""
    if text is None:
        return None
    name, [share, *more] = weighted(text, place, [1.0 if alone else 0.5], SHARE)
    if more:
        raise AudioLDMError(f"{place}={text} has {1 + len(more)} shares.", "Give one.")
    path = find(name)
    if not path.is_file():
        raise AudioLDMError(f"{place}={name} is not a file.", "Name a sound file, such as ref.wav.")
    if alone and share != 1:
        raise AudioLDMError(f"{place}={text} leaves {1 - share:g} to a prompt.", "Give one, or no share.")
    return path, share


def sound_embedding(pipe: Pipe, path: Path) -> torch.Tensor:
    """CLAP's embedding (1, D) of a sound file."""
    conditions.check_can_hear(pipe, "--audio-prompt")
    try:
        wave = decode.decode(path, pipe.spec.rate)
    except AudioLDMError as error:
        hint = "Name a sound file that can be read."
        raise AudioLDMError(f"audio-prompt: {error.message}", hint) from error
    if wave.numel() < pipe.spec.n_fft or not bool(wave.abs().max() > 0):
        why = f"is silent or shorter than {pipe.spec.n_fft} samples"
        raise AudioLDMError(f"audio-prompt={path} {why}.", "Use another.")
    return conditions.clap_of(pipe, wave[None])
