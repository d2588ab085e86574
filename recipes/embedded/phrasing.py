"""Captions of single sounds joined to captions of scenes, in plain English that stays true."""

import re

VERBS = (
    "bark", "bleat", "blow", "bubble", "burn", "burst", "buzz", "call", "chirp", "chug", "clang", "clink", "close",
    "cluck", "cough", "crackle", "creak", "crow", "cry", "drip", "echo", "fall", "flap", "flow", "gallop", "growl",
    "groan", "grunt", "hiss", "honk", "hoot", "howl", "hum", "laugh", "meow", "moo", "mumble", "neigh", "play", "quack",
    "ring", "rise", "roar", "roll", "rumble", "run", "rush", "rustle", "scream", "shriek", "sing", "snap", "sneeze",
    "snort", "sound", "speak", "spin", "splash", "squeak", "squeal", "strike", "swing", "talk", "tick", "trumpet",
    "tweet", "wail", "walk", "whine", "whisper", "whistle",
)  # fmt: skip
"""verbs of sounds in captions; a caption with another verb keeps its -ing form"""


def gerund(verb: str) -> str:
    """The -ing form.

    >>> [gerund(verb) for verb in ("bark", "close", "hum", "cry", "sneeze", "drip")]
    ['barking', 'closing', 'humming', 'crying', 'sneezing', 'dripping']
    """
    if verb.endswith("e") and not verb.endswith(("ee", "oe")):
        return verb[:-1] + "ing"
    if re.fullmatch(r"[^aeiou]*[aeiou][bdgmnpt]", verb):
        return verb + verb[-1] + "ing"
    return verb + "ing"


def third(verb: str) -> str:
    """The form for he, she, it.

    >>> [third(verb) for verb in ("bark", "cry", "rush", "play", "hiss")]
    ['barks', 'cries', 'rushes', 'plays', 'hisses']
    """
    if re.search(r"[^aeiou]y$", verb):
        return verb[:-1] + "ies"
    return verb + ("es" if verb.endswith(("s", "sh", "ch", "x", "z")) else "s")


FORMS = {gerund(verb): verb for verb in VERBS}
COUNTED = {
    "a footstep": "footsteps", "a step": "steps", "a knock": "knocks", "a click": "clicks", "a beep": "beeps",
    "a gunshot": "gunshots", "an explosion": "explosions", "a sneeze": "sneezes", "a heavy thud": "heavy thuds",
    "a soft thud": "soft thuds", "a blow": "blows", "a short hiss": "short hisses", "a splash": "splashes",
    "a whoosh": "whooshes", "a shotgun blast": "shotgun blasts", "a camera click": "camera clicks",
}  # fmt: skip
"""what can be counted -> its plural"""
NUMBERS = {2: "two", 3: "three", 4: "four"}
TIMES = {2: "twice", 3: "three times", 4: "four times"}
PLURALS = ("people", "children", "men", "women")
UNFIT = re.compile(
    r"[,;\"]| (and|then|is|are|while|followed|with)\b|recording of|the sound of|the noise of"
    r"|\b(crows|cries|barks|ticks|sneezes|crackles)$|^(clock|dog|fire|baby|crying|barking)\b|\bin$"
)
"""Captions that would read badly or become untrue inside a longer one."""


def clause(caption: str) -> str | None:
    """A caption as a sentence that may follow "while"; None if it is not of the form "something doing".

    >>> clause("rain falling"), clause("a man crying out in pain"), clause("birds chirping"), clause("a crackling fire")
    ('rain falls', 'a man cries out in pain', 'birds chirp', None)
    """
    hit = re.fullmatch(r"(?P<who>.+?) (?P<verb>\w+ing)(?P<rest>( .*)?)", caption)
    if hit is None or hit["verb"] not in FORMS or hit["who"] in ("a", "an", "the"):
        return None
    who, verb = hit["who"], FORMS[hit["verb"]]
    singular = who.split()[0] in ("a", "an", "one", "someone", "somebody")
    one = singular or not (who.endswith("s") or who.split()[-1] in PLURALS)
    return f"{who} {third(verb) if one else verb}{hit['rest']}"


def several(caption: str, count: int) -> str | None:
    """``count`` of what the caption names; None if it cannot be counted.

    >>> several("a footstep on gravel", 3), several("rain falling", 2)
    ('three footsteps on gravel', None)
    """
    for one, more in COUNTED.items():
        if caption == one or caption.startswith(f"{one} "):
            return f"{NUMBERS[count]} {more}{caption[len(one) :]}"
    return None


def usable(captions: tuple[str, ...]) -> tuple[str, ...]:
    """The captions that can be part of a longer one: a single thing, and nothing about order or about the file.

    >>> usable(("a dog barking", "a dog is barking", "a recording of a dog", "a thud, then a crash", "wind and rain"))
    ('a dog barking',)
    """
    return tuple(caption for caption in captions if not UNFIT.search(caption))


def captions(shape: str, first: str, second: str | None = None, count: int = 1) -> tuple[str, ...]:
    """The captions of a scene of ``shape`` (over, then, together, times, times then).

    >>> captions("over", "a dog barking", "rain falling")
    ('a dog barking while rain falls', 'a dog barking with rain falling in the background')
    >>> captions("times then", "a knock on wood", "a door closing", 3)
    ('three knocks on wood, then a door closing', 'three knocks on wood followed by a door closing')
    """
    if shape.startswith("times"):
        first = several(first, count) or f"{first} {TIMES[count]}"
    if shape == "times" or second is None:
        return (first,)
    if shape == "together":
        return (f"{first} and {second}", f"{second} and {first}")
    if shape == "over":
        known = clause(second)
        return ((f"{first} while {known}",) if known else ()) + (f"{first} with {second} in the background",)
    return (f"{first}, then {second}", f"{first} followed by {second}")
