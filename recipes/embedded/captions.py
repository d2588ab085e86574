"""More wordings of a caption that say the same of the same sound, and how much a kind of caption counts.

Templates and synonyms only: a rule may name a thing otherwise or say less, never more.
"""

import re
from collections.abc import Iterable

from .phrasing import FORMS, clause

NOTE = r"(note )?\b[A-G]( sharp| flat)? ?-?\d\b|\bnote\b"
DYNAMICS = r" (played )?(very )?(softly|loudly|quietly)| in the (low|middle|high) register"
GAME = re.compile(
    r"^(a (video|retro) game sound|a user interface|a game |an audio navigation|a soft desktop notification"
    r"|a notification chime|upbeat instrumental|instrumental video|a menu |a reverberant impulse)"
)
"""captions that name an event of a program, not a sound"""
INSTRUMENTS = (
    "grand piano|upright piano|piano|alto saxophone|saxophone|tuba|double bass|cello|violin|viola|trumpet|trombone"
    "|french horn|flute|clarinet|oboe|bassoon|harp|guitar|organ|accordion|harpsichord|glockenspiel|marimba|xylophone"
    "|vibraphone|tubular bells|choir|banjo|sitar|piccolo|recorder|celesta|bagpipe|electric piano|electric guitar"
)
SYNONYMS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"a dog barking", ("a hound barking", "a dog that barks", "a puppy yapping", "a barking dog", "dogs barking")),
    (r"a wolf howling", ("a dog howling", "howling")),
    (r"a coyote howling|wolves howling", ("a dog howling", "a dog howling at night")),
    (r"rain falling", ("rainfall", "it is raining", "a rain shower", "a downpour", "heavy rain", "rain")),
    (r"rain and thunder", ("rain with thunder", "a thunderstorm with rain", "a storm")),
    (r"thunder rumbling|thunder", ("a thunderclap", "a thunderstorm", "rolling thunder", "lightning striking")),
    (r"sea waves|ocean waves[a-z ]*|waves", ("the surf", "waves breaking on a shore", "the ocean", "the sea")),
    (r"a baby crying", ("an infant crying", "a baby screaming", "a newborn wailing", "a crying baby")),
    (r"a clock ticking", ("a ticking clock", "the tick of a clock", "a watch ticking", "tick tock")),
    (r"a person sneezing", ("someone sneezing", "a sneeze", "a man sneezing", "a woman sneezing")),
    (r"a helicopter[a-z ]*", ("a chopper flying overhead", "helicopter rotor blades", "a helicopter hovering")),
    (r"a chainsaw[a-z ]*", ("a chainsaw cutting wood", "a motor saw running", "a power saw felling a tree")),
    (r"a rooster crowing", ("a cockerel crowing", "a cock crowing at dawn", "cock-a-doodle-doo", "a crowing rooster")),
    (r"fire crackling|a fire burning|crackling fire",
     ("a crackling fire", "a campfire", "burning wood crackling", "logs burning", "a fireplace", "flames crackling")),
    (r"a cat meowing", ("a cat mewing", "a kitten meowing", "a meowing cat", "a cat")),
    (r"a horse neighing", ("a horse whinnying", "a neighing horse")),
    (r"a crow cawing", ("a raven cawing", "a crow calling")),
    (r"a chicken clucking|a hen clucking", ("a hen cackling", "chickens", "a clucking hen")),
    (r"a sheep bleating|a goat bleating", ("a bleating animal",)),
    (r"a seagull crying|a flock of seagulls crying", ("a gull calling", "seagulls by the sea")),
    (r"flies buzzing|a bee buzzing", ("an insect buzzing", "a buzzing insect", "a swarm buzzing")),
    (r"a person snoring", ("someone snoring", "a man snoring", "snoring")),
    (r"a man coughing|a woman coughing", ("someone coughing", "a cough", "coughing")),
    (r"a crowd laughing", ("people laughing", "laughter", "an audience laughing")),
    (r"a hand clap|a body percussion hand clap", ("someone clapping", "a clap", "clapping hands")),
    (r"an explosion", ("a blast", "a bomb exploding", "something exploding", "a loud explosion")),
    (r"a gunshot|a gun firing|a rifle firing", ("a shot being fired", "a gun being fired", "gunfire")),
    (r"a machine gun firing", ("a machine gun", "automatic gunfire", "bursts of gunfire")),
    (r"glass breaking|glass shattering", ("glass being smashed", "a window breaking", "a bottle smashing")),
    (r"wind blowing", ("the wind howling", "a strong wind", "wind", "a gust of wind")),
    (r"a car engine running", ("a car idling", "a running engine", "a motor car")),
    (r"a police siren", ("a siren", "an emergency siren", "an ambulance siren", "a fire engine's siren")),
    (r"a train|a train passing", ("a train going past", "a railway train", "a passing train")),
    (r"a steam train whistle blowing", ("a steam locomotive whistling", "a train whistle")),
    (r"a toilet flushing", ("flushing a toilet",)),
    (r"water running from a tap", ("a running tap", "a faucet running", "water flowing from a faucet")),
    (r"dripping water|water dripping", ("water dripping", "drops of water falling", "a dripping tap")),
    (r"a waterfall", ("falling water", "water rushing down", "a cascade")),
    (r"a river flowing", ("a stream", "a brook", "flowing water")),
    (r"birds singing[a-z ]*", ("birdsong", "birds chirping", "songbirds")),
    (r"footsteps on (.+)|footsteps walking on (.+)", ("someone walking on {0}", "steps on {0}")),
    (r"knocking on a door", ("someone knocking at the door", "a knock on the door", "a person knocking")),
    (r"a door closing", ("a door being shut", "someone closing a door")),
    (r"a door opening", ("a door being opened", "someone opening a door")),
    (r"coins? being dropped|gold coins being dropped", ("coins falling", "dropping coins", "money dropping")),
    (r"keys jingling|keys rattling in a [a-z]+", ("a bunch of keys", "rattling keys", "jangling keys")),
    (r"a camera shutter clicking", ("taking a photograph", "a photo being taken", "a camera clicking")),
    (r"a drill running|a power drill running", ("an electric drill running", "drilling", "a power tool running")),
    (r"sawing wood", ("wood being sawn", "a handsaw", "someone sawing")),
    (r"a hair ?dryer blowing", ("a hairdryer", "a blow dryer", "drying hair")),
    (r"a vacuum cleaner running", ("a vacuum cleaner", "hoovering", "vacuuming a floor")),
    (r"sizzling|water sizzling", ("something frying", "frying in a pan", "sizzling in a pan")),
    (r"a zipper being zipped", ("a zipper", "zipping up a jacket", "a zip being pulled")),
    (r"a crowd of people|indistinct chatter of people", ("people talking", "many people talking", "a busy room")),
    (r"a bell ringing", ("a bell", "a ringing bell", "the ringing of a bell")),
    (r"a buckling spring mechanical keyboard.*|a \w+ mechanical keyboard.*",
     ("a key being pressed on a keyboard", "typing on a keyboard", "typing")),
    (r"a rocket being launched", ("a rocket taking off", "a rocket launch")),
    (r"a (science fiction )?laser( sound| shot| firing)?", ("a laser gun firing", "a laser", "a ray gun")),
    (r"a phone ringing|a telephone ringing", ("a ringing telephone", "an old telephone", "a phone")),
    (r"an alarm sounding", ("an alarm", "an alarm going off", "a warning alarm")),
    (r"applause|people applauding|a crowd applauding and cheering",
     ("an audience clapping", "people clapping their hands", "a round of applause", "applause after a show")),
    (r"people cheering|a crowd applauding and cheering", ("a cheering crowd", "fans cheering")),
    (r"a mosquito buzzing", ("a gnat buzzing", "an insect flying near the ear", "a mosquito")),
    (r"a jet plane (taking off|landing)", ("an aeroplane {0}", "a jet aircraft {0}", "a passenger jet", "an airplane")),
    (r"a propeller (aeroplane|engine) ?([a-z ]*)", ("a propeller aircraft", "a small plane", "an airplane engine")),
    (r"a motorcycle passing by", ("a motorbike", "a motorcycle driving past")),
    (r"(a|an old) bus starting", ("a bus", "a bus driving off", "the engine of a bus")),
    (r"a truck starting and pulling away|a garbage truck", ("a lorry", "a truck", "a heavy vehicle")),
    (r"a car passing by|a car driving", ("a passing car", "a car going past", "road traffic")),
    (r"a car horn( honking)?|a vehicle horn", ("a car hooting", "honking", "a driver sounding the horn")),
    (r"tyres squealing|a skidding sound|skidding on the ground|aeroplane tyres screeching on the ground",
     ("screeching tyres", "tyres skidding on a road", "a vehicle braking hard")),
    (r"a (man|woman|person) (screaming|yelling|shouting)", ("someone {1}", "a loud shout", "a {0} yelling")),
    (r"people laughing|a laugh sound|a man laughing|a woman laughing", ("laughter", "someone laughing", "laughing")),
    (r"a lion roaring( aggressively)?|a tiger roaring", ("a big cat roaring", "a wild animal roaring")),
    (r"a cow mooing|a calf mooing", ("a cow", "cattle lowing", "a mooing cow")),
    (r"a pig (grunting|oinking).*|a piggy oinking", ("a pig", "pigs in a sty", "a hog grunting")),
    (r"a duck quacking", ("ducks on a pond", "a quacking duck")),
    (r"a horse (galloping|walking|trotting)", ("hooves", "the hoofbeats of a horse", "a horse on a road")),
    (r"a horned owl hooting|an owl hooting", ("an owl at night", "a hooting owl")),
    (r"a (cobra|cat|seep) hissing|a snake rattling", ("hissing", "a hissing animal")),
    (r"machine gun fire", ("a machine gun firing", "automatic gunfire", "bursts of gunfire")),
    (r"fireworks (exploding|popping)", ("fireworks", "a firework display", "rockets bursting in the sky")),
    (r"a hammer (hitting|striking).*", ("hammering", "someone hammering")),
    (r"church bells? ringing.*", ("church bells", "bells ringing in a tower")),
    (r"metal clanging|metallic clangs?|a metallic clang", ("metal hitting metal", "clanging", "a clang of metal")),
    (r"paper crumpling|crinkling", ("crumpling paper", "paper being crumpled")),
    (r"cloth being (torn|ripped)", ("fabric being {0}", "tearing cloth")),
    (r"cutlery clattering", ("knives and forks", "cutlery in a drawer")),
    (r"washing (the )?dishes( by hand)?", ("dishes being washed", "crockery in a sink")),
    (r"coins? clinking|coins being handled", ("coins", "loose change", "jingling coins")),
    (r"a picture being taken|a camera click", ("a camera shutter", "taking a photograph", "a photo being taken")),
    (r"typing on a keyboard", ("someone typing", "fingers typing fast", "keys being typed")),
    (r"a machine printing|a printer", ("a printer printing", "an office printer")),
    (r"footsteps crunching on snow|a crunch of snow", ("steps in snow", "someone walking through snow")),
    (r"footsteps", ("someone walking", "steps", "a person walking")),
    (r"boiling water|bubbles rising in boiling water", ("water boiling", "a boiling pot")),
    (r"a train passing|a train|a diesel train departing", ("a train on rails", "a locomotive")),
    (r"a steam train departing|a steam train whistle( blowing)?", ("a steam engine", "an old train")),
    (r"glass being smashed|glass breaking", ("breaking glass", "something of glass shattering")),
    (r"ceramic breaking", ("crockery breaking", "a cup breaking", "pottery shattering")),
    (r"indistinct chatter of people|a busy coffee shop.*|a crowd of people",
     ("people chatting", "conversations in a busy place", "the babble of voices")),
    (r"an electric shaver.*", ("an electric razor", "shaving")),
    (r"(a|an electric|a kitchen extractor) fan running", ("a fan", "a ventilator")),
    (r"an electronic beep|a beep|electronic beeps", ("beeping", "a device beeping", "a machine beeping")),
)  # fmt: skip
"""a whole caption (as a pattern) -> what else is true of the sound"""
WORDS = {
    "a person": ("someone", "somebody"), "people": ("a group of people",), "aeroplane": ("airplane",),
    "tyres": ("tires",), "aluminium": ("metal",), "crisps": ("chips",), "being hit": ("being struck",),
    "rattling": ("clattering",), "falling": ("coming down",), "a woman": ("a lady",), "a car": ("an automobile",),
}  # fmt: skip
"""a part of a caption -> what may stand in its place"""


def kind(caption: str) -> str:
    """The caption without note names and dynamics: clips of one kind share the weight of the kind.

    >>> kind("a single grand piano note G sharp 5 played softly"), kind("a dog barking")
    ('a single grand piano', 'a dog barking')
    """
    text = re.sub(DYNAMICS, "", re.sub(NOTE, "", caption))
    return re.sub(r"\bplaying an?$", "playing", re.sub(r"\s+", " ", text).strip())


def without_article(caption: str) -> str:
    """The caption without its first "a", "an" or "the"."""
    return re.sub(r"^(an?|the) ", "", caption)


def verbal(caption: str) -> Iterable[str]:
    """Other forms of a sentence: a dog barking, a barking dog, a dog is barking, a dog barks."""
    hit = re.fullmatch(r"(an?|the)? ?([a-z ]+?) ([a-z]+ing)( .*)?", caption)
    if hit and hit[3] in FORMS:
        article, who, verb, rest = (part or "" for part in hit.groups())
        yield f"{article} {who} {'are' if who.endswith('s') else 'is'} {verb}{rest}".strip()
        if not rest:
            joined = f"{verb} {who}"
            yield f"{'an' if joined[0] in 'aeiou' else 'a'} {joined}" if article else joined
    if known := clause(caption):
        yield known


def musical(caption: str) -> Iterable[str]:
    """Of a note of an instrument: the instrument, and that it plays."""
    if (hit := re.search(INSTRUMENTS, caption)) and re.search(
        r"note|played|playing|plucked|bowed|chord", caption
    ):
        name = hit[0]
        article = "an" if name[0] in "aeiou" else "a"
        yield from (f"{article} {name}", f"{article} {name} playing", f"{article} {name} playing a note")
        if short := re.search(r"piano|saxophone", name):
            yield from (f"a {short[0]}", f"a {short[0]} playing a note")
        if octave := re.search(r"\b[A-G](?: sharp| flat)? ?(-?\d)\b", caption):
            height = "low" if int(octave[1]) <= 2 else "high" if int(octave[1]) >= 5 else "middle"
            yield f"{article} {name} playing a {height} note"


def wordings(caption: str) -> list[str]:
    """The caption first, then what else may be said of its sound, without repetitions.

    >>> wordings("a baby crying")[:4]
    ['a baby crying', 'baby crying', 'the sound of a baby crying', 'a baby is crying']
    """
    texts = [caption, without_article(caption)]
    if not caption.startswith("the sound of"):
        texts.append(f"the sound of {caption}")
    else:
        texts.append(caption.removeprefix("the sound of "))
    texts += [*verbal(caption), *musical(caption)]
    for pattern, others in SYNONYMS:
        if hit := re.fullmatch(pattern, caption):
            texts += [other.format(*(group for group in hit.groups() if group)) for other in others]
    for word, others in WORDS.items():
        if word in caption:
            texts += [caption.replace(word, other) for other in others]
    return list(dict.fromkeys(text for text in texts if text))
