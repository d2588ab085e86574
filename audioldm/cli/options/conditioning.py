"""What a sound is to be like, and what it is to follow in time."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audioldm.cli.console import say
from audioldm.cli.options import SHARE, Group, option, setting, weighted
from audioldm.errors import AudioLDMError
from audioldm.paths import find

if TYPE_CHECKING:
    from torch import Tensor

    from audioldm.control.controls import AudioPromptControl, MapControl
    from audioldm.control.maps import MapSource
    from audioldm.pipeline.audioldm import AudioLDM

SHIPPED = Path("own")
AudioPrompt = tuple[Path, float]
"""a sound file, and how much of the condition it is"""


class SoundConditions(Group):
    panel = "Conditioning on sound"
    audio_prompt: str | None = option(None, "Sound like this file, by SHARE.  [default: 0.5]", "FILE[:SHARE]")
    control: list[str] = option([], "Follow a sound, or a CSV of seconds,value.", "MAP=FILE[:SCALE]")
    control_net: list[Path] = setting([], "Net of a --control: control/t2i_adapter or controlnet.", "FOLDER")
    # nets of one recipe each, which says how
    ip_adapter: Path | None = option(None, "Attend to --audio-prompt.", "FOLDER", hidden=True)
    prior: Path | None = option(None, "Draw a sound's vector from the prompt.", "FOLDER", hidden=True)
    micro: list[str] = option([], "As if cut from such a clip.", "FACT=NUMBER", hidden=True)

    def check(self) -> "list[MapSource]":
        """The maps to follow, once it is sure that the files are there; imports torch only where there is any."""
        if self.ip_adapter is not None and self.audio_prompt is None:
            raise AudioLDMError("--ip-adapter has no sound to attend to.", "Give --audio-prompt FILE.")
        if self.control_net and not self.control:
            raise AudioLDMError("control_net has no map to read.", "Give --control MAP=FILE.")
        nets = dict.fromkeys((*self.control_net, self.ip_adapter), "control/t2i_adapter")
        for folder, recipe in (nets | {self.prior: "caption/prior"}).items():
            if folder not in (None, SHIPPED) and not folder.exists():
                raise AudioLDMError(f"{folder} is not there.", f"Train it: audioldm recipes {recipe}.")
        if not self.control:
            return []
        from audioldm.control.maps import MapSource

        maps = [MapSource.parse(text) for text in self.control]
        for source in maps:
            source.check()
        return maps

    def apply(self, pipe: "AudioLDM", maps: "list[MapSource]", seconds: float) -> "AudioLDM":
        """``pipe`` under these conditions, for a clip of ``seconds``.   Raises AudioLDMError where one does not fit."""
        pipe = with_prior(with_micro(pipe, self.micro), self.prior)
        nets = self.nets(pipe, [source.name for source in maps]) if maps else {}
        controls = [map_control(pipe, source, nets[source.name], seconds) for source in maps]
        reference = read_audio_prompt(self.audio_prompt, alone=False)
        if self.ip_adapter is None or reference is None:
            return replace(pipe, controls=(*pipe.controls, *controls))
        return replace(
            pipe, controls=(*pipe.controls, *controls, ip_adapter(pipe, self.ip_adapter, *reference))
        )

    def nets(self, pipe: "AudioLDM", maps: list[str]) -> dict[str, Any]:
        """The net of each map: one that was named, else the one that comes with the model.   Raises AudioLDMError."""
        from audioldm.control.controls import check_fits, load_net, shipped

        nets: dict[str, Any] = {}
        for folder in self.control_net:
            net = load_net(folder)
            name = getattr(net.config, "map", "")
            if name in nets:
                raise AudioLDMError(f"Two control_nets read {name}.", "Name one for each map.")
            nets[name] = net
            if name in maps:
                warn_of_base(net, pipe, folder)
        others = f"; the control_net named reads {', '.join(filter(None, nets))}" if nets else ""
        for name in maps:
            place = None if name in nets else shipped(name, pipe.hashes.get("unet"))
            if name not in nets and place is None:
                hint = f"Train one (control/t2i_adapter data.map={name}) and --set control_net=FOLDER."
                raise AudioLDMError(f"No net reads {name} for {pipe.name}{others}.", hint)
            nets[name] = nets[name] if place is None else load_net(place)
            check_fits(nets[name], pipe.unet, pipe.spec, pipe.name)
        return nets


def map_control(pipe: "AudioLDM", source: "MapSource", net: Any, seconds: float) -> "MapControl":
    from audioldm.control.controls import MapControl

    curve = source.curve(pipe.spec)
    length = len(curve) * pipe.spec.hop / pipe.spec.rate
    if abs(length - seconds) > 0.1:  # by more than a frame or so
        longer = f"what is after {seconds:.2f} s is not used"
        rest = longer if length > seconds else f"after {length:.2f} s nothing steers"
        lasts = f"lasts {length:.2f} s, the clip {seconds:.2f} s"
        say(f"control {source.name}={source.path} {lasts}: {rest}.")
    return MapControl(net.to(pipe.device, pipe.dtype), curve, pipe.spec, source.scale, str(source.path))


def ip_adapter(pipe: "AudioLDM", folder: Path, path: Path, scale: float) -> "AudioPromptControl":
    """Attention to the sound at ``path``, by the net in ``folder`` or the model's own."""
    from audioldm.control.controls import IP_ADAPTER, AudioPromptControl, check_fits, load_net, shipped
    from audioldm.control.nets import IPAdapter

    place = shipped(IP_ADAPTER, pipe.hashes.get("unet")) if folder == SHIPPED else folder
    if place is None:
        hint = "Train one: audioldm train control/ip_adapter."
        raise AudioLDMError(f"{pipe.name} has no net of its own for --ip-adapter.", hint)
    net = load_net(place)
    if not isinstance(net, IPAdapter):
        raise AudioLDMError(f"ip-adapter={folder} holds a {type(net).__name__}.", "Train control/ip_adapter.")
    vector = sound_embedding(pipe, path)
    check_fits(net, pipe.unet, pipe.spec, pipe.name, dim=vector.shape[-1])
    warn_of_base(net, pipe, place)
    return AudioPromptControl(net.to(pipe.device, pipe.dtype), vector, scale, str(path))


def warn_of_base(net: Any, pipe: "AudioLDM", folder: Path) -> None:
    """One line where a net was trained with other weights than those that it is to steer."""
    base, unet = net.config.base, pipe.hashes.get("unet")
    if base and unet and base != unet:
        others = f"another U-Net ({base[:12]}...) than that of {pipe.name} ({unet[:12]}...)"
        say(f"{folder} was trained with {others}; it may not steer.")


def with_micro(pipe: "AudioLDM", texts: list[str]) -> "AudioLDM":
    if not texts:
        return pipe
    from audioldm.control.controls import MicroControl, parse_facts

    facts = parse_facts(texts)
    if not any(isinstance(control, MicroControl) for control in pipe.controls):
        hint = "Train one: recipe sdxl/micro."
        raise AudioLDMError(f"{pipe.name} was not trained with micro-conditioning.", hint)
    controls = (replace(one, facts=facts) if isinstance(one, MicroControl) else one for one in pipe.controls)
    return replace(pipe, controls=tuple(controls))


def with_prior(pipe: "AudioLDM", folder: Path | None) -> "AudioLDM":
    """``pipe`` with the prior in ``folder``, or the embedded model's.   Raises AudioLDMError where it does not fit."""
    if folder is None:
        return pipe
    from audioldm.nets import prior
    from audioldm.nets.clap import load_in_space

    place = prior.SHIPPED if folder == SHIPPED else folder
    if not (place / "config.json").is_file():
        raise AudioLDMError(f"There is no prior in {place}.", "Train one: audioldm train caption/prior.")
    return replace(pipe, prior=load_in_space(place, prior.Prior, pipe.clap, "caption/prior"))


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


def sound_embedding(pipe: "AudioLDM", path: Path) -> "Tensor":
    """CLAP's embedding (1, D) of a sound file."""
    from audioldm.datasets.decode import decode
    from audioldm.pipeline.conditions import check_can_hear, clap_of

    check_can_hear(pipe, "--audio-prompt")
    try:
        wave = decode(path, pipe.spec.rate)
    except AudioLDMError as error:
        hint = "Name a sound file that can be read."
        raise AudioLDMError(f"audio-prompt: {error.message}", hint) from error
    if wave.numel() < pipe.spec.n_fft or not bool(wave.abs().max() > 0):
        why = f"is silent or shorter than {pipe.spec.n_fft} samples"
        raise AudioLDMError(f"audio-prompt={path} {why}.", "Use another.")
    return clap_of(pipe, wave[None])
