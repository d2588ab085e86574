"""What a sound is to be like, and what it is to follow in time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from audioldm.cli.console import say
from audioldm.cli.options import SHARE, Group, option, setting, weighted
from audioldm.cli.startup import later
from audioldm.errors import AudioLDMError
from audioldm.paths import find

with later():
    import torch

    from audioldm.control import controls, maps, nets
    from audioldm.datasets import decode
    from audioldm.nets import clap, prior
    from audioldm.pipeline import audioldm, conditions

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

    def apply(
        self, pipe: audioldm.AudioLDM, sources: list[maps.MapSource], seconds: float
    ) -> audioldm.AudioLDM:
        """``pipe`` under these conditions, for a clip of ``seconds``.   Raises AudioLDMError where one does not fit."""
        present = list(pipe.controls)
        if self.micro:
            facts = controls.parse_facts(self.micro)
            if not any(isinstance(control, controls.MicroControl) for control in present):
                hint = "Train one: recipe sdxl/micro."
                raise AudioLDMError(f"{pipe.name} was not trained with micro-conditioning.", hint)
            present = [
                replace(c, facts=facts) if isinstance(c, controls.MicroControl) else c for c in present
            ]
        if self.prior is not None:
            place = prior.SHIPPED if self.prior == SHIPPED else self.prior
            if not (place / "config.json").is_file():
                what = f"There is no prior in {place}."
                raise AudioLDMError(what, "Train one: audioldm train caption/prior.")
            net = clap.load_in_space(place, prior.Prior, pipe.clap, "caption/prior")
            pipe = replace(pipe, prior=net)
        present += self.map_controls(pipe, sources, seconds)
        reference = read_audio_prompt(self.audio_prompt, alone=False)
        if self.ip_adapter is not None and reference is not None:
            present.append(ip_adapter(pipe, self.ip_adapter, *reference))
        return replace(pipe, controls=tuple(present))

    def map_controls(
        self, pipe: audioldm.AudioLDM, sources: list[maps.MapSource], seconds: float
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


def ip_adapter(
    pipe: audioldm.AudioLDM, folder: Path, path: Path, scale: float
) -> controls.AudioPromptControl:
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


def warn_of_base(net: Any, pipe: audioldm.AudioLDM, folder: Path) -> None:
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


def sound_embedding(pipe: audioldm.AudioLDM, path: Path) -> torch.Tensor:
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
