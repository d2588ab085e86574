"""What a sound is to follow in time: ``--control``."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audioldm.errors import AudioLDMError

if TYPE_CHECKING:
    from audioldm.control.source import Asked
    from audioldm.control.steer import Control
    from audioldm.pipeline.audioldm import AudioLDM


OWN = Path("own")


@dataclass(frozen=True)
class Steering:
    """Maps to follow, and the nets that read them."""

    control: Annotated[
        list[str],
        typer.Option(
            metavar="MAP=FILE[:SCALE]",
            show_default=False,
            help="Follow the loudness, pitch, onset, centroid or edges of a sound, or a CSV of seconds,value."
            "  Repeatable.",
        ),
    ] = field(default_factory=list)
    control_net: Annotated[
        list[Path],
        typer.Option(
            metavar="FOLDER",
            show_default=False,
            help="Its net: what `audioldm train control/t2i_adapter` or control/controlnet exported; the embedded "
            "model has its own.  Repeatable.",
        ),
    ] = field(default_factory=list)
    like_net: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Attend to --like's sound beside the words (IP-Adapter), SHARE being its scale: what "
            "`audioldm train control/ip_adapter` exported, or 'own' for the one that the embedded model has.",
        ),
    ] = None

    def check(self, like: str | None) -> "list[Asked]":
        """What is asked for, once it is sure that the files are there; imports torch only where there is any."""
        if self.like_net is not None and like is None:
            raise AudioLDMError("--like-net has no sound to attend to.", "Give --like FILE[:SCALE].")
        if self.control_net and not self.control:
            raise AudioLDMError("--control-net has no map to read.", "Give --control MAP=FILE.")
        for folder in (*self.control_net, *([self.like_net] if self.like_net not in (None, OWN) else [])):
            if not folder.exists():
                raise AudioLDMError(
                    f"{folder} is not there.", "Train it: audioldm recipes control/t2i_adapter."
                )
        if not self.control:
            return []
        from audioldm.control.source import Asked

        asked = [Asked.parse(text) for text in self.control]
        for one in asked:
            one.check()
        return asked

    def steer(
        self, pipe: "AudioLDM", asked: "list[Asked]", seconds: float, like: tuple[Path, float] | None
    ) -> "AudioLDM":
        """``pipe`` under these controls; ``like`` is the sound to attend to and its scale."""
        if not asked and self.like_net is None:
            return pipe
        from audioldm.control.prompt import AudioPrompt
        from audioldm.control.steer import AudioPromptControl, MapControl, check_fits, load_net

        controls: list[Control] = []
        nets = self.nets(pipe, [one.name for one in asked])
        for one in asked:
            net = nets[one.name].to(pipe.device, pipe.dtype)
            curve = one.curve(pipe.spec)
            tell_length(one, len(curve) * pipe.spec.hop / pipe.spec.rate, seconds)
            controls.append(MapControl(net, curve, pipe.spec, one.scale, str(one.path)))
        if self.like_net is not None and like is not None:
            from audioldm.cli.options.mixing import heard

            folder = own_like(pipe) if self.like_net == OWN else self.like_net
            net = load_net(folder)
            if not isinstance(net, AudioPrompt):
                raise AudioLDMError(
                    f"like-net={folder} holds a {type(net).__name__}.", "Train control/ip_adapter."
                )
            vector = heard(pipe, like[0])
            check_fits(net, pipe.unet, pipe.spec, pipe.name, dim=vector.shape[-1])
            tell_base(net, pipe, folder)
            controls.append(
                AudioPromptControl(net.to(pipe.device, pipe.dtype), vector, like[1], str(like[0]))
            )
        return replace(pipe, controls=tuple(controls))

    def nets(self, pipe: "AudioLDM", maps: list[str]) -> dict[str, Any]:
        """The net of each map: one that was named, else the one that comes with the model.   Raises AudioLDMError."""
        from audioldm.control.shipped import shipped
        from audioldm.control.steer import check_fits, load_net

        found: dict[str, Any] = {}
        for folder in self.control_net:
            net = load_net(folder)
            name = getattr(net.config, "map", None)
            if name in found:
                raise AudioLDMError(f"Two --control-nets read {name}.", "Name one for each map.")
            if name in maps:
                tell_base(net, pipe, folder)
            found |= {name: net} if name else {}
        for name in maps:
            if name not in found and (own := shipped(name, pipe.hashes.get("unet"))) is not None:
                found[name] = load_net(own)
            if name not in found:
                given = f"; the --control-net given reads {', '.join(found)}" if found else ""
                raise AudioLDMError(
                    f"No net reads {name} for {pipe.name}{given}.",
                    f"Train one (audioldm train control/t2i_adapter data.map={name}) and name it with --control-net.",
                )
            check_fits(found[name], pipe.unet, pipe.spec, pipe.name)
        return found


def own_like(pipe: "AudioLDM") -> Path:
    """The folder of the audio prompt that comes with ``pipe``; raises AudioLDMError where none does."""
    from audioldm.control.shipped import LIKE, shipped

    if (folder := shipped(LIKE, pipe.hashes.get("unet"))) is None:
        raise AudioLDMError(
            f"{pipe.name} has no net of its own for --like-net.",
            "Train one: audioldm train control/ip_adapter.",
        )
    return folder


def tell_base(net: Any, pipe: "AudioLDM", folder: Path) -> None:
    """One line where a net learned with other weights than those that it is to steer."""
    own = pipe.hashes.get("unet")
    if net.config.base and own and net.config.base != own:
        typer.echo(
            f"audioldm: {folder} was trained with another U-Net ({net.config.base[:12]}...) than that of {pipe.name} "
            f"({own[:12]}...); it may not steer.",
            err=True,
        )


def tell_length(asked: "Asked", has: float, wanted: float) -> None:
    """One line where a control is longer or shorter than the clip by more than a frame or so."""
    if has > wanted + 0.1:
        rest = f"what is after {wanted:.2f} s is not used"
    elif has < wanted - 0.1:
        rest = f"after {has:.2f} s nothing steers"
    else:
        return
    typer.echo(
        f"audioldm: control {asked.name}={asked.path} lasts {has:.2f} s, the clip {wanted:.2f} s: {rest}.",
        err=True,
    )
