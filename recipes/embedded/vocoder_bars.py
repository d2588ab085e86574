"""What vocoders keep of real sounds, and what they cost: the table of the embedded model's card.

    python -m recipes.embedded.vocoder_bars ROWS.json NEW_FOLDER OLD_FOLDER --vae FOLDER --out DIR

``ROWS.json`` is a list of held-out clips: ``file`` and ``caption`` (and ``pitch`` in Hz where it is a rendered note).
A clip counts as recognised by the rule of ``audioldm evaluate prompts``, with the AudioSet classes that its caption
names (``KINDS``).   Every row hears the same clips, 5.12 s at most, peak 0.5.
"""

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audioldm.datasets.decode import decode
from audioldm.evaluation.embedders.yamnet import YamNet
from audioldm.evaluation.prompts import class_scores, right_classes
from audioldm.losses.spectral import multi_resolution_stft
from audioldm.nets.folder import load_component
from audioldm.nets.hifigan import vocode
from audioldm.nets.vae import encode
from audioldm.signal.invert import griffin_lim, refine_phase
from audioldm.signal.level import normalise_peak
from audioldm.signal.mel import LogMel
from audioldm.spec import AudioSpec
from recipes.embedded.release_checks.pitch import note_pitch

KINDS = {
    "dog bark": "Dog|Bark|Bow-wow|Yip|Howl|Growling",
    "cat|meow": "Cat|Meow|Purr|Caterwaul",
    "rooster": "Chicken, rooster|Crowing, cock-a-doodle-doo|Fowl",
    "crow ": "Crow|Caw|Bird",
    "bird|budgie|peacock|parrot|gull": (
        "Bird|Bird vocalization, bird call, bird song|Chirp, tweet|Crow|Gull, seagull"
    ),
    "cicada|cricket|insect": "Insect|Cricket|Cicada|Bee, wasp, etc.|Fly, housefly",
    "frog": "Frog|Croak|Insect|Cricket",
    "goat|sheep": "Goat|Sheep|Bleat",
    "horse|pony": "Horse|Neigh, whinny|Clip-clop",
    "pig": "Pig|Oink",
    "rain": "Rain|Raindrop|Rain on surface|Water|White noise",
    "sea waves|ocean|surf": "Ocean|Waves, surf|Water|Wind",
    "waterfall": "Waterfall|Water|Stream|White noise",
    "splash|water|dripping|bubbl|pouring": (
        "Water|Liquid|Drip|Pour|Splash, splatter|Stream|Water tap, faucet|Fill (with liquid)|"
        "Trickle, dribble|Gurgling|Boiling|Spray|Sink (filling or washing)"
    ),
    "sizzl|frying": "Frying (food)|Sizzle|Boiling",
    "fire crackling|crackling": "Fire|Crackle|Firecracker",
    "wind blow": "Wind|Wind noise (microphone)|Rustling leaves",
    "thunder": "Thunder|Thunderstorm",
    "helicopter": "Helicopter|Aircraft|Vehicle|Propeller, airscrew",
    "quadcopter": (
        "Helicopter|Propeller, airscrew|Aircraft|Bee, wasp, etc.|Mosquito|Fly, housefly|Vehicle|Engine|"
        "Buzz|Drill"
    ),
    "chainsaw": "Chainsaw|Lawn mower|Light engine (high frequency)|Engine|Motorcycle|Vehicle",
    "engine|generator": (
        "Engine|Vehicle|Car|Motor vehicle (road)|Idling|Engine starting|Medium engine (mid frequency)|"
        "Light engine (high frequency)|Truck"
    ),
    "vacuum": "Vacuum cleaner|Mechanical fan|Hair dryer",
    "hair dryer": "Hair dryer|Vacuum cleaner|Mechanical fan",
    "fan running|extractor": "Mechanical fan|Air conditioning|Vacuum cleaner|Hair dryer|Microwave oven",
    "blender": "Blender|Vacuum cleaner|Power tool|Drill",
    "drill|screwdriver|power tool": (
        "Drill|Power tool|Tools|Electric shaver, electric razor|Sanding|Sewing machine"
    ),
    "printer": "Printer|Mechanisms",
    "car horn": "Vehicle horn, car horn, honking|Vehicle|Toot|Car",
    "train": "Train|Rail transport|Steam whistle|Train whistle|Train horn",
    "explosion|howitzer|bomb|firing|gun": (
        "Explosion|Gunshot, gunfire|Artillery fire|Boom|Cap gun|Fireworks|Machine gun|Fusillade"
    ),
    "glass": "Glass|Chink, clink|Shatter|Ding|Clang",
    "plates|cup |bowl": "Dishes, pots, and pans|Glass|Chink, clink|Cutlery, silverware",
    "keyboard enter|keyboard back|mechanical keyboard": "Computer keyboard|Typing|Typewriter",
    "key ring|keys rattl": "Keys jangling|Jingle, tinkle|Coin (dropping)",
    "door": "Door|Slam|Doorbell|Ding-dong|Cupboard open or close|Sliding door",
    "cupboard": "Cupboard open or close|Door|Drawer open or close",
    "footstep": "Walk, footsteps|Run|Crunch",
    "snor": "Snoring|Snort|Breathing",
    "sneez": "Sneeze|Cough",
    "baby cry": "Baby cry, infant cry|Crying, sobbing|Whimper",
    "clock tick": "Clock|Tick|Tick-tock",
    "saying|speech|speaking|yell|voice": (
        "Speech|Shout|Yell|Male speech, man speaking|Female speech, woman speaking|Narration, monologue|"
        "Conversation|Child speech, kid speaking|Inside, small room"
    ),
    'singing "': "Singing|Choir|Chant|Music|Male singing|Female singing|Mantra|Vocal music|A capella",
    "whistling": "Whistling|Whistle",
    "piano": "Piano|Keyboard (musical)|Electric piano|Music|Musical instrument",
    "saxophone": "Saxophone|Wind instrument, woodwind instrument|Brass instrument|Music|Musical instrument",
    "tuba|trombone|trumpet|horn ": "Trombone|Brass instrument|Trumpet|French horn|Music|Musical instrument",
    "bass string": (
        "Bass guitar|Double bass|Guitar|Plucked string instrument|Music|Musical instrument|"
        "Bass (instrument role)"
    ),
    "harp": "Harp|Music|Musical instrument|Plucked string instrument",
    "kick|tom hit|snare|conga|drum": (
        "Drum|Bass drum|Snare drum|Percussion|Drum kit|Drum roll|Tabla|Music|Musical instrument|Wood block"
    ),
    "cymbal|hi-hat": "Cymbal|Hi-hat|Percussion|Drum kit",
    "tambourine|castanet": "Tambourine|Percussion|Maraca|Rattle (instrument)|Wood block",
    "xylophone|vibra|bamboo|angklung|music box": (
        "Mallet percussion|Marimba, xylophone|Glockenspiel|Vibraphone|Music|Musical instrument|Steelpan|"
        "Chime|Wind chime"
    ),
    "bell|chime|pling|singing bowl": (
        "Bell|Chime|Church bell|Wind chime|Ding|Tubular bells|Singing bowl|Music|Musical instrument|"
        "Jingle bell|Tuning fork|Glockenspiel"
    ),
    "synthesizer|music|pad": (
        "Synthesizer|Music|Musical instrument|Electronic music|Ambient music|Theremin|Sampler"
    ),
    "beep|notification|select sound": "Beep, bleep|Ding|Chime|Sine wave|Bell|Music|Alarm|Ping",
    "jingl|chain": "Jingle, tinkle|Coin (dropping)|Keys jangling|Chink, clink",
    "clap": "Clapping|Hands|Finger snapping",
    "squeak": "Squeak|Squeal|Creak",
    "metal": "Clang|Dishes, pots, and pans|Chink, clink|Ding|Clink|Bell",
}
"""Parts of a caption -> AudioSet classes any of which is right; the first entry that fits counts."""
TONAL = ("piano", "saxophone", "tuba", "trombone", "bell", "chime", "pling", "harp", "xylophone", "note", "bass string",
         "music box", "singing bowl", "synthesizer", "beep", "vibra", "whistl", "voices singing")  # fmt: skip
LONGEST = 5.12
FRAME = 400
"""Samples (25 ms) over which a level is taken."""
DIGITAL = 1e-5
"""RMS below which nothing is heard: -100 dB."""


def classes_of(caption: str) -> list[str]:
    """The classes that a caption names; none where it names no kind."""
    text = f"{caption.lower()} "
    for parts, classes in KINDS.items():
        if any(part in text for part in parts.split("|")):
            return classes.split("|")
    return []


def levels(output: Tensor, real: Tensor) -> dict[str, float]:
    """Errors of level in dB over frames (25 ms) that are loud and that are 40 dB below the clip's loudest.

    ``bias`` is the mean error of a clip, ``spread`` the mean of its absolute values, which two draws of one noise have,
    too.   Frames of digital silence are left out.
    """
    size = min(len(output), len(real)) // FRAME * FRAME
    a, b = (wave[:size].view(-1, FRAME).square().mean(1).sqrt() for wave in (output, real))
    error = 20 * torch.log10(a.clamp(min=DIGITAL) / b.clamp(min=DIGITAL))
    loud = b >= b.max() / 100
    quiet = ~loud & (b > DIGITAL)
    values = {"loud bias": float(error[loud].mean()), "loud spread": float(error[loud].abs().mean())}
    if quiet.sum() >= 4:
        values |= {"quiet bias": float(error[quiet].mean()), "quiet spread": float(error[quiet].abs().mean())}
    return values


def main() -> None:
    """Read the command line, run every way over every clip, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("old", type=Path)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", help="ways to run")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--every", type=int, default=1, help="take every n-th clip")
    parser.add_argument(
        "--others", type=int, default=60, help="clips beside those that are recognised when real"
    )
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    args.out.mkdir(parents=True, exist_ok=True)
    spec = AudioSpec()
    mel_of, yamnet = LogMel(spec), YamNet()
    new, old, vae = load_component(args.new), load_component(args.old), load_component(args.vae)
    bare = copy.deepcopy(new)
    bare.register_to_config(corrections=0)
    rows = json.loads(args.rows.read_text())[: args.limit : args.every]

    def refined(mel: Tensor) -> Tensor:
        return refine_phase(
            vocode(old, mel), mel, spec, rounds=16, generator=torch.Generator().manual_seed(0)
        )

    def through(mel: Tensor) -> Tensor:
        frames = -(-mel.shape[-2] // 8) * 8
        padded = torch.nn.functional.pad(mel, (0, 0, 0, frames - mel.shape[-2]), value=-11.5129)
        return vae.decode(encode(vae, padded)[0]).sample[:, :, : mel.shape[-2]]

    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "new": lambda mel: vocode(new, mel),
        "new, uncorrected": lambda mel: vocode(bare, mel),
        "v1": lambda mel: vocode(old, mel),
        "v1 + refined 16": refined,
        "Griffin-Lim 32": lambda mel: griffin_lim(mel, spec, generator=torch.Generator().manual_seed(0)),
        "VAE + new": lambda mel: vocode(new, through(mel)),
        "VAE + new, uncorrected": lambda mel: vocode(bare, through(mel)),
        "VAE + v1": lambda mel: vocode(old, through(mel)),
        "VAE + v1 + refined 16": lambda mel: refined(through(mel)),
    }
    if args.only:
        ways = {name: ways[name] for name in args.only}
    values = []
    begin, others = time.time(), args.others
    for number, row in enumerate(rows):
        wave = decode(row["file"], spec.rate)[: int(LONGEST * spec.rate)]
        wave = normalise_peak(torch.nn.functional.pad(wave, (0, max(0, 4000 - len(wave)))))
        wave = wave[: len(wave) // spec.hop * spec.hop]
        real = class_scores(wave, spec.rate, yamnet)
        classes = classes_of(row["caption"])
        about = {"caption": row["caption"], "file": row["file"], "seconds": len(wave) / spec.rate}
        about |= {"known": bool(classes), "right": bool(right_classes(real, classes)), "ways": {}}
        about["tonal"] = any(word in row["caption"] for word in TONAL)
        if not about["right"]:
            if others <= 0 and "pitch" not in row:
                continue
            others -= "pitch" not in row
        if "pitch" in row:
            about["pitch"] = note_pitch(wave)
        first = next(iter(real))
        mel = mel_of(wave[None, None])
        for name, way in ways.items():
            output = way(mel)[0, 0]
            scores = class_scores(output, spec.rate, yamnet)
            kept: dict[str, Any] = {
                "right": bool(right_classes(scores, classes)),
                "first": first in list(scores)[:3],
            }
            kept["mel"] = float((mel_of(output[None, None]) - mel).abs().mean())
            kept["stft"] = float(multi_resolution_stft(output[None, None], wave[None, None]))
            kept["peak"] = float(output.abs().max())
            kept |= levels(output, wave)
            if about.get("pitch"):
                kept["pitch"] = note_pitch(output)
            about["ways"][name] = kept
        values.append(about)
        if number % 50 == 49:
            print(f"{number + 1} of {len(rows)}, {time.time() - begin:.0f} s", flush=True)
    (args.out / "clips.json").write_text(json.dumps(values, indent=1))
    print(table(values, list(ways)))


def table(clips: list[dict], names: list[str]) -> str:  # type: ignore[type-arg]
    """One line a way."""
    base = [clip for clip in clips if clip["right"]]
    tonal = [clip for clip in clips if clip["tonal"]]
    notes = [clip for clip in clips if clip.get("pitch")]
    lines = [f"{len(clips)} clips, {sum(c['known'] for c in clips)} of known kind, {len(base)} recognised when real; "
             f"{len(tonal)} tonal, {len(notes)} notes with a pitch"]  # fmt: skip

    def median(clips: list[dict], name: str, key: str) -> float:  # type: ignore[type-arg]
        values = [clip["ways"][name][key] for clip in clips if key in clip["ways"][name]]
        return statistics.median(values) if values else float("nan")

    def mean(clips: list[dict], name: str, key: str) -> float:  # type: ignore[type-arg]
        values = [float(clip["ways"][name][key]) for clip in clips if key in clip["ways"][name]]
        return statistics.fmean(values) if values else float("nan")

    for name in names:
        part = {"tag kept": mean(base, name, "right"), "first tag among three": mean(clips, name, "first")}
        part["log-mel L1"] = mean(clips, name, "mel")
        for key in ("loud bias", "loud spread", "quiet bias", "quiet spread"):
            part[key] = median(clips, name, key)
        for kind, limit in (("loud", 1.0), ("quiet", 3.0)):
            values = [
                abs(c["ways"][name][f"{kind} bias"]) for c in clips if f"{kind} bias" in c["ways"][name]
            ]
            part[f"|{kind} bias| median"] = statistics.median(values)
            part[f"{kind} within {limit:g} dB"] = statistics.fmean(v <= limit for v in values)
        part["STFT, tonal"] = mean(tonal, name, "stft")
        if notes:
            near = [c["ways"][name].get("pitch") for c in notes]
            part["pitch kept"] = statistics.fmean(
                p is not None and abs(p / c["pitch"] - 1) < 0.03 for p, c in zip(near, notes, strict=True)
            )
        lines.append(f"{name:22s} " + "  ".join(f"{key} {value:.3f}" for key, value in part.items()))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
