"""Short sentences spoken by espeak-ng, a formant synthesiser: the words, the language and the voice are known."""

import tempfile
from functools import partial
from pathlib import Path

from torch import Tensor

from audioldm.datasets.decode import decode

from .rendering import LONGEST, RATE, SHORTEST, Clip, chooser, fit, program, run
from .scenes import sounding

SENTENCES: dict[str, tuple[str, tuple[str, ...]]] = {
    "en-us": ("English", (
        "Good morning, how are you today?", "The train leaves at seven o'clock.", "Please close the door behind you.",
        "I would like a cup of tea, please.", "Where is the nearest station?", "It is raining outside again.",
        "The dog is sleeping on the sofa.", "Turn left at the next corner.", "Dinner is almost ready.",
        "Can you hear the birds singing?", "My sister lives near the sea.", "The meeting has been cancelled.",
        "We will arrive in ten minutes.", "Do not forget your umbrella.", "There are seven days in a week.",
        "Welcome to the museum.", "The water is very cold today.", "Somebody is knocking at the door.",
        "Thank you very much for your help.", "The light is green, you may go.", "He plays the piano every evening.",
        "This is the end of the line.", "Your call is important to us.", "One, two, three, four, five.",
        "The wind is getting stronger.", "Open the window and let some air in.", "I have never been to Iceland.",
        "Please wait for the beep.", "The cat climbed up the tree.", "See you again tomorrow.",
    )),
    "de": ("German", ("Guten Morgen, wie geht es dir?", "Der Zug kommt heute etwas später.", "Bitte mach die Tür zu.",
                      "Es regnet schon den ganzen Tag.", "Wir sehen uns morgen wieder.")),
    "fr-fr": ("French", ("Bonjour, comment allez-vous ?", "Le train part à sept heures.",
                         "Fermez la porte, s'il vous plaît.",
                         "Il pleut encore aujourd'hui.", "Merci beaucoup, à demain.")),
    "es": ("Spanish", ("Buenos días, ¿cómo estás?", "El tren sale a las siete.", "Cierra la puerta, por favor.",
                       "Hoy llueve otra vez.", "Muchas gracias, hasta mañana.")),
    "it": ("Italian", ("Buongiorno, come stai?", "Il treno parte alle sette.", "Chiudi la porta, per favore.",
                       "Oggi piove di nuovo.", "Grazie mille, a domani.")),
}  # fmt: skip
"""espeak-ng's language -> (its name, sentences)"""
VOICES = {"male": ("m1", "m2", "m3", "m4", "m5", "m6", "m7"), "female": ("f1", "f2", "f3", "f4", "f5")}
WHISPER = ("whisper", "whisperf")
PACES = {"slowly": 110, "": 160, "quickly": 230}
"""adverb -> words a minute"""


def speak(text: str, voice: str, pace: int, pitch: int) -> Tensor:
    """A sentence as samples (N,) at 16 kHz, without the silence around it, 2 to 5 s."""
    with tempfile.TemporaryDirectory() as folder:
        sound = Path(folder) / "a.wav"
        run(
            [
                program("espeak-ng"),
                "-v",
                voice,
                "-s",
                str(pace),
                "-p",
                str(pitch),
                "-w",
                str(sound),
                "--",
                text,
            ]
        )
        wave = decode(sound, RATE)
    first, last = sounding(wave)
    wave = wave[first:last]
    return fit(wave, min(LONGEST, max(SHORTEST, len(wave) / RATE + 0.1)))


def plan(index: int, seed: int) -> tuple[str, str, int, int, tuple[str, ...]]:
    """(text, voice, words a minute, pitch, captions) of sentence ``index``; of six, one is whispered, one foreign."""
    rng = chooser(seed, "speech", index)
    language = rng.choice(list(SENTENCES)[1:]) if index % 6 == 5 else "en-us"
    name, texts = SENTENCES[language]
    text = rng.choice(texts)
    quoted = text.rstrip(".").lower() if language == "en-us" else text
    pitch = rng.randint(30, 70)
    if index % 6 == 4:
        captions = (
            "a robotic voice whispering",
            "a robotic voice whispering in English",
            f'whispered speech: "{quoted}"',
        )
        return text, f"{language}+{rng.choice(WHISPER)}", PACES[""], pitch, captions
    who = rng.choice(list(VOICES))
    how = rng.choice(list(PACES)) if language == "en-us" else ""
    adverb = f" {how}" if how else ""
    said: tuple[str, ...] = (
        f"a robotic {who} voice speaking{adverb or f' in {name}'}",
        f"synthetic speech in {name}{adverb and f', spoken{adverb}'}",
    )
    if language == "en-us":
        said = (*said, f'a robotic {who} voice saying "{quoted}"')
    return text, f"{language}+{rng.choice(VOICES[who])}", PACES[how], pitch, said


def sounds(count: int, seed: int) -> list[Clip]:
    """``count`` sentences; sentence ``i`` depends on (seed, i) and espeak-ng only."""
    out = []
    for index in range(count):
        text, voice, pace, pitch, captions = plan(index, seed)
        out.append(
            Clip(
                f"speech/1/{text}/{voice}/{pace}/{pitch}", captions, ("speech",), f"rendered/speech/{text}",
                "CC0-1.0", "audioldm, spoken by espeak-ng", "rendered/speech", partial(speak, text, voice, pace, pitch),
            )
        )  # fmt: skip
    return out
