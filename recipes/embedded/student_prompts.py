"""Prompts that the embedded model's student of few steps learned from, one a line, more often where they count more.

    python -m recipes.embedded.student_prompts -o data/student_prompts.txt
    python -m recipes.embedded.student_prompts --manifest DIR/manifest.jsonl --without open_prompts.tsv -o out.txt

ESC-10's and their wordings, the development prompts', AudioSet's class names in several phrases, the captions of
opensounds2 and their wordings, each kind by its number of captions to the power .3, and pairs of them.   ``--without``
leaves prompts out.
"""

import argparse
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from audioldm.evaluation.embedders.yamnet import class_names, data_folder
from recipes.embedded.captions import GAME, kind, wordings
from recipes.embedded.esc10 import PROMPTS
from recipes.embedded.phrasing import captions as joined
from recipes.embedded.phrasing import usable

PAIRS, LINES = 3000, 60_000
PHRASES = (
    "the sound of {}", "a recording of {}", "{} in the distance", "{} close by", "{} outdoors", "{} in a large room",
    "{} at night", "loud {}", "quiet {}", "{} in the background", "{} on a street", "{}, no other sound",
)  # fmt: skip
"""what else a class of AudioSet is asked for by"""
HERE = Path(__file__).parent


def first_column(path: Path) -> list[str]:
    """What stands before the first tab of each line."""
    return [line.split("\t")[0].strip() for line in path.read_text().splitlines() if line.strip()]


def kinds_of(manifest: Path) -> dict[str, list[str]]:
    """Kind of caption -> its captions."""
    kinds = defaultdict[str, set[str]](set)
    for line in manifest.read_text().splitlines():
        caption = json.loads(line)["caption"]
        kinds[kind(caption)].add(caption)
    return {name: sorted(captions) for name, captions in kinds.items()}


def pairs_of(names: Sequence[str], rng: random.Random) -> list[str]:
    """Captions of two sounds together, one over the other, or one after the other."""
    fit = [texts for name in names if (texts := usable((name,)))]
    pairs: dict[str, None] = {}
    while len(pairs) < PAIRS:
        first, second = rng.sample(fit, 2)
        pairs[rng.choice(joined(rng.choice(("together", "then", "over")), first[0], second[0]))] = None
    return sorted(pairs)


def shares(kinds: dict[str, list[str]], without: Iterable[str], seed: int = 0) -> Counter[str]:
    """Prompt -> how often, as a share of 1."""
    out, left = Counter[str](), {text.lower() for text in without}

    def give(texts: Sequence[str], total: float) -> None:
        texts = [text for text in texts if text.lower() not in left]
        for text in texts:
            out[text] += total / len(texts)

    esc, dev = list(PROMPTS.values()), first_column(HERE / "dev_prompts.tsv")
    give(esc, 0.10)
    for texts, total in ((esc, 0.06), (dev, 0.10)):
        for text in texts:
            give(wordings(text), total / len(texts))
    names = [name.lower().replace("_", " ") for name in class_names(data_folder()) if name != "Silence"]
    give(names, 0.10)
    give([phrase.format(name) for name in names for phrase in PHRASES], 0.16)
    plain, game = ([name for name in kinds if bool(GAME.match(name)) == is_game] for is_game in (False, True))
    for part, total in ((plain, 0.30), (game, 0.02)):
        whole = sum(len(kinds[name]) ** 0.3 for name in part)
        for name in part:
            captions = kinds[name][:12]
            for caption in captions:
                give(wordings(caption)[:12], total * len(kinds[name]) ** 0.3 / whole / len(captions))
    rng = random.Random(seed)
    give(pairs_of([*plain, *esc, *dev], rng), 0.10)
    give(pairs_of(names, rng), 0.06)
    return out


def main() -> None:
    """Write the list."""
    line = argparse.ArgumentParser(description="Prompts for the embedded model's student of few steps.")
    line.add_argument("--manifest", type=Path, default=Path("data/opensounds2/manifest.jsonl"))
    line.add_argument("--without", type=Path, help="prompts that stay unseen, such as those of a test")
    line.add_argument("-o", "--out", type=Path, default=Path("data/student_prompts.txt"))
    options = line.parse_args()
    left = first_column(options.without) if options.without else []
    rows = shares(kinds_of(options.manifest), left)
    text = [prompt for prompt, share in rows.items() for _ in range(max(1, round(share * LINES)))]
    options.out.write_text("\n".join(text) + "\n")
    print(f"{len(rows)} prompts in {len(text)} lines: {options.out}")


if __name__ == "__main__":
    main()
