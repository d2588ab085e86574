"""Trains captioners and a prior from stored CLAP features against the clock: what docs/log.md says of them.

    python -m recipes.caption.lease features FILES.jsonl... --data DIR        # minutes of a CPU: 33 MB that travel
    python -m recipes.caption.lease main --data DIR --out DIR --seconds 65    # all pairs; CapFilt on them; again
    python -m recipes.caption.lease noisy --data DIR --out DIR --seconds 25   # BLIP's case: few clean, many wrong
    python -m recipes.caption.lease few --data DIR --out DIR --seconds 50     # 300 pairs, and texts first
    python -m recipes.caption.lease prior --data DIR --out DIR --seconds 25

The losses are those of ``CaptionerTraining`` and ``PriorTraining``.   What CLAP hears of two windows of each clip is
kept as its vectors and as ``KEEP`` principal parts of its frames, in steps of ``STEP`` deviations of the last of them.
Each captioner keeps the average of its weights that has the least cross-entropy on the val rows; its captions of the
test rows are what ``judge`` reads.   R rows, W windows, B batch, T stretches of time, D width of CLAP's space.
"""

import argparse
import json
import lzma
import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from audioldm.batch import Batch, LatentBatch
from audioldm.datasets.audio_text import AudioText
from audioldm.datasets.manifest import Row, read
from audioldm.evaluation.embedders.yamnet import class_names, data_folder
from audioldm.nets.captioner import Captioner, build_captioner, sound_features
from audioldm.nets.clap import TwoTowers
from audioldm.nets.folder import save_component
from audioldm.pipeline.captions import SECONDS, Captioning
from audioldm.signal.level import normalise_peak
from audioldm.spec import SPECS
from audioldm.training.captioner import CaptionerTraining, read_texts
from audioldm.training.prior import PriorTraining, build_prior
from recipes.caption.judge import folder_of
from recipes.embedded.captions import wordings
from recipes.embedded.model_lease import follow, load_clap, rate

KEEP, STEP, WINDOWS, PIECE = 320, 1.2, 2, 32
ROWS, PRETRAIN = 192, 0.15
"""of a batch; share of the time on texts alone"""
CLEAN, EXCHANGED, FEW = 1500, 0.5, 300
"""pairs that are true; share of the others whose captions are exchanged; few pairs"""


@torch.no_grad()
def write_features(manifests: Sequence[Path], clap: TwoTowers, folder: Path) -> None:
    """Vectors (N, D) and frames' principal parts (N, T, KEEP) of windows, two of a clip that is longer than one, and
    the rows that they are of; weak captions are left out.
    """
    rows = [row for path in manifests for row in read(path) if row.weight == 1]
    spec = next(spec for spec in SPECS.values() if spec.rate == clap.rate)
    clips = AudioText(rows, spec, SECONDS, seed=0, captions="first", cache=False)
    windows = [(place, 0) for place in range(len(rows))]
    windows += [(place, 1) for place, row in enumerate(rows) if (row.seconds or 0) > SECONDS]
    parts = []
    for at in range(0, len(windows), PIECE):
        waves = torch.stack([clips[window][0] for window in windows[at : at + PIECE]])
        vector, frames = sound_features(clap, normalise_peak(waves))
        assert frames is not None
        parts.append((vector.half(), frames.half()))
    vectors, frames = (torch.cat(part) for part in zip(*parts, strict=True))
    pack(vectors, frames, [place for place, _ in windows], rows, folder)
    write_texts(rows, folder)


def write_texts(rows: Sequence[Row], folder: Path) -> None:
    """Texts that need no sound: wordings of the train rows and of Debian's open sounds, AudioSet's class names."""
    listed = Path("data/manifests/opensounds.jsonl").read_text(encoding="utf-8").splitlines()
    captions = [json.loads(line)["caption"] for line in listed]
    captions += [row.captions[0] for row in rows if row.split == "train"]
    names = [name.lower() for name in class_names(data_folder())]
    texts = [text for caption in captions for text in wordings(caption)[:3]]
    texts += [*(f"the sound of {name}" for name in names), *names]
    (folder / "texts.txt").write_text("".join(f"{text}\n" for text in dict.fromkeys(texts)), encoding="utf-8")


def pack(vectors: Tensor, frames: Tensor, places: Sequence[int], rows: Sequence[Row], folder: Path) -> None:
    sample = frames.flatten(0, 1)[::23].float()
    mean = sample.mean(0)
    _, _, basis = torch.pca_lowrank(sample - mean, KEEP, center=False, niter=3)
    codes = torch.cat([(part.float() - mean) @ basis for part in frames.split(64)])
    step = STEP * codes[..., -1].std()
    whole = {
        "vectors": vectors,
        "codes": (codes / step).round().clamp(-127, 127).to(torch.int8),
        "mean": mean,
    }
    whole |= {"basis": step * basis.T.contiguous(), "places": torch.tensor(places)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "features.xz").write_bytes(lzma.compress(save(whole), preset=1))
    kept = [
        {"file": row.path, "captions": row.captions, "split": row.split, "group": row.group} for row in rows
    ]
    kept = [{**each, "folder": folder_of(row)} for each, row in zip(kept, rows, strict=True)]
    (folder / "rows.json").write_text(json.dumps(kept))


class Features:
    """Stored features on the device, and the rows that they are of."""

    def __init__(self, folder: Path, clap: TwoTowers, device: torch.device) -> None:
        stored = {
            k: v.to(device) for k, v in load(lzma.decompress((folder / "features.xz").read_bytes())).items()
        }
        self.vectors, self.codes, places = stored["vectors"], stored["codes"], stored["places"].tolist()
        self.basis, self.mean = stored["basis"], stored["mean"]
        self.rows = json.loads((folder / "rows.json").read_text())
        self.clap, self.device = clap, device
        last = {place: window for window, place in enumerate(places)}
        self.windows = torch.tensor([[place, last[place]] for place in range(len(self.rows))], device=device)
        self.captions = [row["captions"][0] for row in self.rows]
        self.text = self.embedded(self.captions)

    @torch.no_grad()
    def embedded(self, texts: Sequence[str]) -> Tensor:
        """CLAP's vectors (n, D)."""
        return torch.cat([self.clap.embed_text(texts[at : at + 512]) for at in range(0, len(texts), 512)])

    def of(self, places: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (B, D) and frames (B, T, E)."""
        index = self.windows[places, window]
        return self.vectors[index].float(), self.codes[index].float() @ self.basis + self.mean

    def split(self, name: str) -> list[int]:
        return [place for place, row in enumerate(self.rows) if row["split"] == name]


class Tokenised:
    """A tokenizer that keeps what the captioner asked of it."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.known = tokenizer, dict[str, list[int]]()

    def __call__(self, texts: Sequence[str], **settings: Any) -> Any:
        if settings.keys() != {"truncation", "max_length"}:
            return self.tokenizer(texts, **settings)
        if new := list({text for text in texts if text not in self.known}):
            self.known |= dict(zip(new, self.tokenizer(new, **settings)["input_ids"], strict=True))
        return {"input_ids": [self.known[text] for text in texts]}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)


class FromFeatures(CaptionerTraining):
    """``CaptionerTraining`` whose batches are places (B,) and windows (B,) of stored features, in ``wave``."""

    features: Features
    labels: dict[int, str]
    text_vectors: Tensor

    @torch.no_grad()
    def encoded(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        places, window = batch.wave
        return *self.features.of(places, window), self.text_vectors[places]

    def with_more_texts(self, captions: list[str], text: Tensor, rng: Any) -> tuple[list[str], Tensor]:
        if not self.texts:
            return captions, text
        places = torch.randint(len(self.texts), (len(captions),), generator=rng, device=rng.device)
        return [*captions, *(self.texts[i] for i in places.tolist())], torch.cat([text, self.more[places]])

    more: Tensor


def half(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")


def batch_of(module: FromFeatures, places: Sequence[int], window: Tensor) -> Batch:
    captions = [module.labels[place] for place in places]
    index = torch.tensor(places, device=window.device)
    return Batch(torch.stack([index, window]), captions, [str(place) for place in places])


@torch.no_grad()
def checked(module: FromFeatures, net: Captioner) -> dict[str, float]:
    """Cross-entropy a token on the val rows, from the sound and from its vector alone; how matches are told apart."""
    before, module.captioner = module.captioner, net.eval()
    places, sums = module.features.split("val"), dict[str, float]()
    for at in range(0, len(places), ROWS):
        part = places[at : at + ROWS]
        labels = {place: module.features.captions[place] for place in part}
        module.labels, kept = labels, module.labels
        batch = batch_of(
            module, part, torch.zeros(len(part), dtype=torch.long, device=module.features.device)
        )
        module.labels = kept
        vector, frames = module.features.of(*batch.wave)
        text = module.features.text[batch.wave[0]]
        sequence = net.sequence(vector, frames)
        logits, targets = module.matches(
            sequence, vector, text, batch.captions, module.validation_generator(at)
        )
        true, false = logits[targets > 0], logits[targets == 0]
        terms = {
            "val": module.cross_entropy(sequence, batch.captions),
            "val_vector": module.cross_entropy(net.sequence(vector), batch.captions),
            "match": ((logits > 0) == (targets > 0)).float().mean(),
            "match_loss": nn.functional.binary_cross_entropy_with_logits(logits, targets),
            "match_auc": (true[:, None] > false).float().mean(),
        }
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + float(value) * len(part) / len(places)
    module.captioner = before
    return sums


def train(
    features: Features, labels: dict[int, str], seconds: float, note: Callable[[dict[str, Any]], None], *,
    texts: Sequence[str] = (), begin: Captioner | None = None, lr: float = 1e-3, sizes: dict[str, Any] | None = None,
    every: float = 4.0, pretrain: float = PRETRAIN,
) -> tuple[Captioner, dict[str, Any]]:  # fmt: skip
    """A captioner that learned from the rows and captions of ``labels`` for so many seconds, and how it went."""
    torch.manual_seed(0)
    device, clap = features.device, features.clap
    net = (
        deepcopy(begin)
        if begin
        else build_captioner(clap, [*labels.values(), *texts], **(sizes or {})).to(device)
    )
    module = FromFeatures(net, clap, texts=texts, batches=10**6)
    module.to(device)
    module.features, module.labels = features, labels
    module.text_vectors = features.text.clone()
    index = torch.tensor(list(labels), device=device)
    module.text_vectors[index] = features.embedded(list(labels.values()))
    module.more = features.embedded(texts) if texts else features.text
    average, best, kept = deepcopy(net).eval(), float("inf"), deepcopy(net).eval()
    optimizer = torch.optim.AdamW(net.parameters(), lr, weight_decay=0.05, fused=device.type == "cuda")
    places, rng, start, looked, curve = list(labels), torch.Generator().manual_seed(0), time.time(), 0.0, []
    while (spent := time.time() - start) < seconds or module.batch_count < 3:
        module.batch_count += 1
        module.pretrain = 10**9 if texts and spent < pretrain * seconds else 0
        for group in optimizer.param_groups:
            group["lr"] = lr * rate(spent / seconds, module.batch_count)
        pick = [
            places[i] for i in torch.randint(len(places), (min(ROWS, len(places)),), generator=rng).tolist()
        ]
        window = torch.randint(WINDOWS, (len(pick),), generator=rng).to(device)
        net.train()
        with half(device):
            loss = module.training_step(batch_of(module, pick, window), 0)["loss"]
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        follow(average, net, min(0.99, module.batch_count / (module.batch_count + 10)))
        if time.time() - looked > every:
            point = {"batches": module.batch_count, "loss": float(loss.detach()), **checked(module, average)}
            curve.append({name: round(value, 4) for name, value in point.items()})
            looked = time.time()
            if not module.pretrain and point["val"] < best:
                best, kept = point["val"], deepcopy(average)
    point = checked(module, average)
    if point["val"] < best:
        kept = average
    report = {
        "batches": module.batch_count,
        "seconds": round(time.time() - start),
        "pairs": len(labels),
        "end": point,
    }
    report |= {"kept": checked(module, kept), "curve": curve}
    note(report)
    return kept.eval(), report


@torch.no_grad()
def written(features: Features, net: Captioner, places: Sequence[int]) -> Iterator[tuple[int, str, float]]:
    """Each place with a caption of its first window and how well it fits."""
    captioning = Captioning(net, features.clap)
    for at in range(0, len(places), 256):
        part = torch.tensor(places[at : at + 256], device=features.device)
        vector, frames = features.of(part, torch.zeros_like(part))
        sequence = net.sequence(vector, frames)
        texts = captioning.choose(vector, *net.candidates(sequence))
        yield from zip(part.tolist(), texts, captioning.matches(sequence, texts), strict=True)


@torch.no_grad()
def filtered(features: Features, net: Captioner, labels: dict[int, str]) -> dict[int, str]:
    """CapFilt: of each row's caption and a new one the one that fits better."""
    places, better = list(labels), dict[int, str]()
    for at in range(0, len(places), 256):
        part = places[at : at + 256]
        index = torch.tensor(part, device=features.device)
        sequence = net.sequence(*features.of(index, torch.zeros_like(index)))
        old = Captioning(net, features.clap).matches(sequence, [labels[place] for place in part])
        for (place, text, fits), before in zip(written(features, net, part), old, strict=True):
            better[place] = text if fits > before else labels[place]
    return better


class Job:
    """What all jobs share: the features, where results go, and the captions of the test rows."""

    def __init__(self, args: argparse.Namespace) -> None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.backends.cuda.matmul.allow_tf32 = True
        clap = load_clap(args.clap).to(device).eval().requires_grad_(False)
        clap.tokenizer = Tokenised(clap.tokenizer)
        self.args, self.out, self.features = args, args.out, Features(args.data, clap, device)
        self.out.mkdir(parents=True, exist_ok=True)
        self.truth = {place: self.features.captions[place] for place in self.features.split("train")}
        self.texts = read_texts(args.data / "texts.txt")
        self.report: dict[str, Any] = {}

    def note(self, name: str) -> Callable[[dict[str, Any]], None]:
        """Writes a training's report beside the others."""

        def noted(report: dict[str, Any]) -> None:
            self.report[name] = report
            (self.out / f"{self.args.what.replace(',', '-')}.json").write_text(json.dumps(self.report))
            print(name, {k: v for k, v in report.items() if k != "curve"}, flush=True)

        return noted

    def captioner(
        self, name: str, labels: dict[int, str], seconds: float, *, keep: bool = False, **how: Any
    ) -> Captioner:
        """Train one, and write its captions of the test rows, and its weights to keep."""
        net, _ = train(self.features, labels, seconds, self.note(name), **how)
        if keep:
            save_component(net, self.out / name, dtype=torch.float16)
        with (self.out / f"{name}.jsonl").open("w") as file:
            for place, text, fits in written(self.features, net, self.features.split("test")):
                row = self.features.rows[place]
                about = {
                    "file": row["file"],
                    "group": row["group"],
                    "folder": row["folder"],
                    "reference": row["captions"][0],
                }
                file.write(json.dumps({**about, "caption": text, "match": round(fits, 4)}) + "\n")
        return net

    def main(self) -> None:
        """All pairs, texts first; CapFilt on them; the same again on the better captions."""
        net = self.captioner("captioner", self.truth, self.args.seconds, keep=True, texts=self.texts)
        better = filtered(self.features, net, self.truth)
        changed = sum(better[place] != text for place, text in self.truth.items())
        self.note("filter")({"replaced": changed / len(better)})
        self.captioner("filtered", better, self.args.seconds, keep=True, texts=self.texts)

    def noisy(self) -> None:
        """BLIP's case: captions that are partly wrong, and few that are true to tune captioner and filter on."""
        rng, places = torch.Generator().manual_seed(1), list(self.truth)
        order = [places[i] for i in torch.randperm(len(places), generator=rng).tolist()]
        clean, others = order[:CLEAN], order[CLEAN:]
        wrong = others[: round(EXCHANGED * len(others))]
        moved = dict(zip(wrong, [self.truth[place] for place in wrong[1:] + wrong[:1]], strict=True))
        labels = {**self.truth, **moved}
        seconds = self.args.seconds
        noisy = self.captioner("noisy", labels, seconds)
        tuned = self.captioner("tuned", {p: self.truth[p] for p in clean}, seconds / 4, begin=noisy, lr=2e-4)
        better = {
            **filtered(self.features, tuned, {p: labels[p] for p in others}),
            **{p: self.truth[p] for p in clean},
        }
        truly = [p for p in wrong if moved[p] != self.truth[p]]
        share = {
            "exchanged that were replaced": sum(better[p] != labels[p] for p in truly) / max(1, len(truly)),
            "true that were replaced": sum(better[p] != labels[p] for p in others if p not in moved)
            / max(1, len(others) - len(moved)),
        }
        self.note("filter")(share)
        again = self.captioner("bootstrapped", better, seconds)
        self.captioner(
            "bootstrapped_tuned", {p: self.truth[p] for p in clean}, seconds / 4, begin=again, lr=2e-4
        )
        self.captioner("clean_alone", {p: self.truth[p] for p in clean}, seconds / 2)

    def few(self) -> None:
        """300 pairs, with and without texts first."""
        order = torch.randperm(len(self.truth), generator=torch.Generator().manual_seed(2)).tolist()[:FEW]
        places = list(self.truth)
        labels = {places[i]: self.truth[places[i]] for i in order}
        self.captioner("few", labels, self.args.seconds / 2)
        self.captioner("few_texts", labels, self.args.seconds / 2, texts=self.texts, pretrain=0.5)

    def prior(self) -> None:
        """The prior on all pairs; cosines, gaps and retrieval on the val and test rows."""
        features, start, seconds = self.features, time.time(), self.args.seconds
        torch.manual_seed(0)
        module = PriorTraining(build_prior(features.clap), empty=features.embedded([""])[0], batches=10**6)
        module.to(features.device)
        net, average = module.prior, deepcopy(module.prior).eval()
        optimizer = torch.optim.AdamW(
            net.parameters(), 1e-3, weight_decay=0.01, fused=features.device.type == "cuda"
        )
        places, curve, looked = torch.tensor(list(self.truth), device=features.device), [], 0.0
        held = torch.tensor(features.split("val") + features.split("test"), device=features.device)
        best, kept = float("inf"), average
        while (spent := time.time() - start) < seconds or module.batch_count < 3:
            module.batch_count += 1
            for group in optimizer.param_groups:
                group["lr"] = 1e-3 * rate(spent / seconds, module.batch_count)
            pick = places[torch.randint(len(places), (512,), device=features.device)]
            audio = features.of(pick, torch.randint(WINDOWS, (512,), device=features.device))[0]
            loss = module.training_step(LatentBatch(audio, audio, features.text[pick], audio), 0)["loss"]
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            follow(average, net, min(0.999, module.batch_count / (module.batch_count + 10)))
            if time.time() - looked > 3:
                looked, module.prior = time.time(), average
                with torch.no_grad():
                    audio = features.of(held, torch.zeros_like(held))[0]
                    value = module.losses(audio, features.text[held], module.validation_generator(0))[
                        0
                    ].mean()
                module.prior = net
                curve.append(
                    {"batches": module.batch_count, "loss": float(loss.detach()), "val": float(value)}
                )
                if float(value) < best:
                    best, kept = float(value), deepcopy(average)
        save_component(kept, self.out / "prior", dtype=torch.float16)
        report: dict[str, Any] = {
            "batches": module.batch_count,
            "seconds": time.time() - start,
            "curve": curve,
        }
        text, audio = features.text[held], features.of(held, torch.zeros_like(held))[0]
        drawn = {"text": text}
        for scale in (1.0, 1.5, 3.0):
            seeds = list(range(len(held)))
            drawn[f"drawn_{scale:g}"] = kept.sample(text, module.empty, seeds=seeds, scale=scale)
        for name, vectors in drawn.items():
            order = (vectors @ audio.T).argsort(1, descending=True)
            right = torch.tensor(
                [
                    [features.captions[a] == features.captions[b] for b in held.tolist()]
                    for a in held.tolist()
                ],
                device=order.device,
            )
            report[name] = {
                "cosine": float((vectors * audio).sum(1).mean()),
                "gap": float((vectors.mean(0) - audio.mean(0)).norm()),
                **{
                    f"recall@{k}": float(right.gather(1, order[:, :k]).any(1).float().mean()) for k in (1, 10)
                },
            }
        self.note("prior")(report)


def main() -> None:
    """Read the command line; write features, or train."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", help="features, or of main, noisy, few and prior some, joined by commas")
    parser.add_argument("manifests", type=Path, nargs="*")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/caption"))
    parser.add_argument("--clap", type=Path, default=Path("audioldm/_embedded"))
    parser.add_argument("--seconds", type=float, default=60.0)
    args = parser.parse_args()
    if args.what == "features":
        write_features(args.manifests, load_clap(args.clap).eval(), args.data)
        return
    job = Job(args)
    for name in args.what.split(","):
        {"main": job.main, "noisy": job.noisy, "few": job.few, "prior": job.prior}[name]()


if __name__ == "__main__":
    main()
