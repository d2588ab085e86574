"""What generating and editing have in common, down to the files of one clip: its sound, picture and sidecar.

N samples; waves are (N,) float32.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from math import log10
from pathlib import Path
from typing import Any, TypeAlias

from audioldm.cli.clips import Clip
from audioldm.cli.console import printable, say, show_json
from audioldm.cli.options import Command
from audioldm.cli.options.groups import FORMATS, Guidance, ModelOptions, Output, Pipe, Steps
from audioldm.cli.startup import beside, later
from audioldm.errors import AudioLDMError
from audioldm.paths import AHEAD, sha256
from audioldm.spec import AudioSpec

with later():
    import numpy as np
    import soundfile
    import torch

    from audioldm import components
    from audioldm.datasets import decode, loudness
    from audioldm.evaluation import picture
    from audioldm.pipeline import guidance as pipeline_guidance
    from audioldm.pipeline import outputs, sounds
    from audioldm.signal import decibels

Wave: TypeAlias = "np.typing.NDArray[np.float32]"
Record = dict[str, Any]  # of a clip, as its sidecar holds it
CEILING_DB = -0.1  # True peak that a clip is scaled down to where it would be beyond full scale
NORMAL_DB = -1.0  # True peak that ``--normalize`` gives
OVERSAMPLING = 4  # ITU-R BS.1770-4, annex 2: enough to find the peaks between the samples to 0.6 dB


class Making(Command):
    """A command that makes sounds."""

    sampling: Steps = Steps()
    guidance: Guidance = Guidance()
    output: Output = Output()
    model: ModelOptions = ModelOptions()

    def results(self) -> Iterator[Record]:
        """Make and save every sound; gives the sidecar and the paths of each.   A dry run only lists them."""
        raise NotImplementedError

    def run(self) -> None:
        """Print the paths of each sound as soon as it is there, or with --json all sidecars at the end."""
        rows = []
        try:
            for row in self.results():
                rows.append(row)
                for name in ("audio", "figure", "sidecar") if not self.output.as_json else ():
                    if row[name]:
                        print(printable(row[name]), flush=True)
        finally:
            if self.output.as_json and rows:
                show_json(rows)

    def check(self) -> None:
        """Refuse unknown samplers, grids, methods and absent devices; imports torch."""
        if (ref := self.model.model) and not self.output.dry_run:
            beside(lambda: AHEAD.update((f, sha256(f, once=True)) for f in Path(ref).glob("*/*.safetensors")))
        self.sampling.check(self.model.device)
        self.guidance.check(self.sampling.sampler)

    def load(self) -> tuple[Pipe, pipeline_guidance.GuidanceConfig, dict[str, Any]]:
        """The model, its guidance, and all settings by the pipeline's names.   Raises AudioLDMError."""
        if self.output.figure:
            beside(lambda: picture.Picture)
        pipe, guidance = self.model.load(), self.guidance
        config, negative = guidance.config(self.model), guidance.negative
        settings = {**vars(pipe.defaults), **self.sampling.named(), "negative": negative}
        settings |= {} if guidance.guidance is None else {"guidance": guidance.guidance}
        config.check(sampler=settings["sampler"], scale=settings["guidance"], negative=negative)
        return pipe, config, settings

    def show_plan(self, clips: Sequence[tuple[Clip, dict[str, Any]]], what: str) -> None:
        rows = []
        for clip, options in clips:
            components.warn_of_unused(options.get("negative"), options.get("guidance"))
            audio = str(clip.files(self.output)["audio"])
            rows.append({"audio": audio, "prompt": clip.prompt, "seed": clip.seed, **options})
        if self.output.as_json:
            show_json(rows)
            return
        for row in rows:
            names = [name for name in row if name not in ("audio", "prompt", "audio_format")]
            rest = "".join(f"  {name}={row[name]}" for name in names)
            print(printable(f"{row['audio']}  {row['prompt']!r}{rest}"))
        say(f"dry run: {len(rows)} {what} would be made.")


@dataclass(frozen=True)
class Level:
    """How loud the model's wave is against full scale (1.0), and what was done about it."""

    peak: float
    true_peak: float
    """with the peaks between samples (BS.1770-4), as heard after a digital-to-analogue converter"""
    clipped: int  # samples at or beyond full scale, as the model gave them
    samples: int
    gain_db: float = 0.0

    @property
    def room_db(self) -> float:
        return CEILING_DB - 20 * log10(max(self.true_peak, 1e-12))


def true_peak(wave: Wave, rate: int) -> float:
    """Largest |sample| of ``wave`` at four times its rate.   ITU-R BS.1770-4, annex 2."""
    samples = torch.from_numpy(wave)
    finer = decode.resample(samples, rate, OVERSAMPLING * rate)
    return max(float(part.abs().max()) if part.numel() else 0.0 for part in (samples, finer))


def levelled(wave: Wave, rate: int, output: Output) -> tuple[Wave, Level]:
    """``wave``, scaled down from beyond full scale, or as --normalize or --lufs ask; AudioLDMError if not finite."""
    if not np.isfinite(wave).all():
        raise AudioLDMError("The sound is not finite.", "Use --set dtype=float32 or less --guidance.", code=1)
    size, gain = np.abs(wave), 0.0
    level = Level(float(size.max(initial=0.0)), true_peak(wave, rate), int((size >= 1).sum()), wave.size)
    if level.true_peak > 0 and output.normalize:
        gain = level.room_db + NORMAL_DB - CEILING_DB
    elif level.true_peak > 0 and output.lufs is not None:
        gain = output.lufs - loudness.loudness(torch.from_numpy(wave), rate)
    level = replace(level, gain_db=round(min(gain, level.room_db), 4))
    return (wave * np.float32(10 ** (level.gain_db / 20)) if level.gain_db else wave), level


def audio_bytes(wave: Wave, rate: int, audio_format: str) -> bytes:
    """A sound file in one of ``FORMATS``; samples outside [-1, 1] are cut to the limits, never wrapped."""
    if audio_format == "m4a":
        with tempfile.TemporaryDirectory() as folder:
            place, wav = Path(folder, "sound.m4a"), audio_bytes(wave, rate, "wav")
            words = ["ffmpeg", "-v", "error", "-f", "wav", "-i", "pipe:0", "-c:a", "aac", "-b:a", "192k"]
            ended = subprocess.run([*words, str(place)], input=wav, capture_output=True, check=False)
            if ended.returncode:
                raise AudioLDMError(f"ffmpeg: {ended.stderr.decode(errors='replace').strip()}", code=1)
            return place.read_bytes()
    kind, subtype = FORMATS[audio_format]
    data: np.typing.NDArray[Any] = wave if subtype == "FLOAT" else wave.clip(-1, 1)
    if subtype == "PCM_16":
        # libsndfile rounds floats in WAV and truncates them in FLAC: integers are the same in both
        data = np.rint(data * 32767).astype(np.int16)
    elif subtype == "PCM_24":
        data = (np.rint(data.astype(np.float64) * 8388607) * 256).astype(np.int32)
    buffer = io.BytesIO()
    soundfile.write(buffer, data, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def wav_header(rate: int) -> bytes:
    """The 44 bytes of RIFF WAVE for one channel of 16 bits, of a length at which players read on to the end."""
    form = (b"RIFF", 2**32 - 1, b"WAVE", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16, b"data", 2**32 - 1)
    return struct.pack("<4sI4s4sIHHIIHH4sI", *form)


def pcm16(wave: torch.Tensor) -> bytes:
    """Samples of a wave (N,) as 16-bit integers."""
    return (wave.clamp(-1, 1) * 32767).round().short().numpy().astype("<i2").tobytes()


def save(
    pipe: Pipe, clip: Clip, wave: Wave, record: Record, output: Output, file: sounds.Sound | None = None
) -> Record:  # fmt: skip
    """Write the files of one clip together, ``file`` as its sound if there is one; returns its sidecar and paths.

    ``record`` is what the sidecar says beside prompt, seed, model, sound and versions.
    """
    files, rate, more = clip.files(output), pipe.spec.rate, dict[str, Any]()
    if file is None:
        wave, level = levelled(wave, rate, output)
        audio = audio_bytes(wave, rate, clip.audio_format)
    else:
        level = replace(levelled(wave, rate, Output())[1], gain_db=file.gain_db)
        audio = sounds.file_bytes(file, clip.audio_format)
        more = {"rate_hz": file.rate, "channels": file.data.shape[1], "samples": len(file.data)}
    sidecar = describe(pipe, clip, record)
    about = {"rate_hz": rate, "seconds": level.samples / rate, "format": clip.audio_format, **asdict(level)}
    sidecar["sound"] = {**about, "sha256": hashlib.sha256(audio).hexdigest(), **more}
    contents: dict[Path, bytes | str] = {}
    contents[files["sidecar"]] = json.dumps(sidecar, indent=2, ensure_ascii=False) + "\n"
    if "figure" in files:
        contents[files["figure"]] = draw(wave, pipe.spec, title=f"{clip.title}   (seed {clip.seed})")
    outputs.publish({**contents, files["audio"]: audio})
    if file is None:
        say_limit(files["audio"], level, output)
    return {"figure": None, **{name: str(path) for name, path in files.items()}, **sidecar}


def say_limit(place: Path, level: Level, output: Output) -> None:
    """One line where full scale decided how loud a sound is."""
    if output.lufs is not None:
        if level.gain_db and level.gain_db >= level.room_db - 1e-3:
            say(f"{place}: {output.lufs:g} LUFS is beyond full scale; it is as loud as its true peak allows.")
    elif level.room_db < 0 and not output.normalize:
        quieter = f"so it is {-level.gain_db:.1f} dB quieter (gain_db in its .json)"
        use = "Lower --guidance for a less driven sound, or choose --lufs."
        say(f"{place}: true peak {level.true_peak:.3g} of full scale, {quieter}. {use}")


def describe(pipe: Pipe, clip: Clip, record: Record) -> Record:
    cuda = pipe.device.type == "cuda"
    device = torch.cuda.get_device_name(pipe.device) if cuda else torch.backends.cpu.get_cpu_capability()
    adapters = {"adapters": pipe.adapted.applied} if pipe.adapted else {}
    made_by = {"device": str(pipe.device), "dtype": str(pipe.dtype).removeprefix("torch."), "mode": pipe.mode}
    machine = {"device": device, "threads": torch.get_num_threads(), "batch_size": 1, "batch_row": 0}
    return {
        "prompt": clip.prompt, "seed": clip.seed, **record,
        "settings": {**record.get("settings", {}), **made_by},
        "model": {"name": pipe.name, **pipe.origin(), "sha256": pipe.hashes, **adapters},
        "machine": {**machine, **record.get("machine", {})},
        "versions": outputs.versions(),
    }  # fmt: skip


def draw(wave: Wave, spec: AudioSpec, *, title: str) -> bytes:
    """PNG of ``wave`` (N,): amplitude against time, and the log-mel of ``spec`` in dB below."""
    # fixed margins: matplotlib's solver would draw everything twice
    figure = picture.Picture(figsize=(8, 5), layout="none")
    places = {"left": 0.1, "right": 0.86, "bottom": 0.1, "top": 0.94, "hspace": 0.08}
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2), gridspec_kw=places)
    line = " ".join(title.split())  # of 80 characters, without mathematics
    line = (line if len(line) <= 80 else f"{line[:79]}…").replace("$", r"\$")
    upper.plot(np.arange(wave.size) / spec.rate, wave, linewidth=0.4)
    upper.set(title=line, ylabel="amplitude", ylim=(-1.05, 1.05))
    levels, seconds = decibels.mel_decibels(wave, spec), wave.size / spec.rate
    image = lower.imshow(
        levels.T, origin="lower", aspect="auto", cmap="magma", vmin=levels.max() - decibels.RANGE_DB,
        vmax=levels.max(), extent=(0, seconds, -0.5, spec.mels - 0.5), interpolation="nearest",
    )  # fmt: skip
    lower.set(xlabel="time (s)", ylabel="mel frequency (Hz)", xlim=(0, seconds))
    ticks = [hertz for hertz in decibels.TICKS_HZ if spec.fmin <= hertz <= spec.fmax]
    lower.set_yticks(decibels.mel_position(np.array(ticks), spec), labels=[str(hertz) for hertz in ticks])
    figure.colorbar(image, cax=figure.add_axes((0.88, 0.1, 0.02, 0.54)), label="mel magnitude (dB)")
    return figure.png()


def strip(wave: Wave) -> bytes:
    """PNG of the waveform (N,) alone, without margins: seconds run from its left edge to its right."""
    figure = picture.Picture(figsize=(10, 1.6), layout="none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.plot(np.arange(wave.size), wave, linewidth=0.4, color="#1d4ed8")
    top = 1.05 * max(1e-3, float(np.abs(wave).max()))
    axes.set(xlim=(0, max(1, wave.size - 1)), ylim=(-top, top))
    axes.axis("off")
    return figure.png(dpi=80)
