"""The AudioSet classes that are right for the kinds of sound that captions name."""

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


def classes_of(caption: str) -> list[str]:
    """The classes that a caption names; none where it names no kind."""
    text = f"{caption.lower()} "
    for parts, classes in KINDS.items():
        if any(part in text for part in parts.split("|")):
            return classes.split("|")
    return []
