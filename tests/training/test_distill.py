"""Students of a tiny model: what learns, what is written, what is heard, and what is said."""

import json
import warnings
from dataclasses import replace

import pytest
import soundfile
import torch

from audioldm import recipes
from audioldm.adapters.adapter import start
from audioldm.adapters.files import read, write
from audioldm.batch import Condition
from audioldm.errors import AudioLDMError, AudioLDMWarning
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.training.callbacks import StopAfter
from audioldm.training.distill import between


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    for i, hertz in enumerate((300.0, 400.0, 500.0, 600.0, 700.0, 800.0)):
        wave = 0.3 * torch.sin(2 * torch.pi * hertz * torch.arange(8000) / 16000)
        soundfile.write(folder / f"a tone of {i}.wav", wave.numpy(), 16000)
    return folder


@pytest.fixture
def settings(tiny_model, sounds, tmp_path):
    return [
        "data=sounds", f"data.model={tiny_model}", f"data.folder={sounds}", "data.prompt=null", "data.seconds=0.32",
        "data.windows=2", "data.workers=0", "data.val_share=0.4", f"task.model={tiny_model}",
        f"run_dir={tmp_path}/run", "batches=3",
        "batch_size=2", "val_every=3", "task.rank=2", "task.trajectories.steps=4",
        "task.trajectories.states=4", "task.trajectories.kept=4",
        "trainer.log_every_n_steps=1", "callbacks.preview=null",
    ]  # fmt: skip


def fitted(name, overrides):
    experiment = recipes.build(recipes.load(name, overrides))
    experiment.fit()
    return experiment.module


@pytest.mark.parametrize(
    ("name", "kind"), [("warmup", "lora"), ("consistency", "full"), ("adversarial", "lora")]
)
def test_every_stage_learns_and_leaves_a_student_that_knows_its_sampler(
    name, kind, settings, tiny_model, tmp_path
):
    module = fitted(f"distill/{name}", [*settings, f"task.kind={kind}"])
    before = AudioLDM.from_pretrained(tiny_model)
    for key, value in module.teacher.unet.state_dict().items():
        assert torch.equal(value, before.unet.state_dict()[key]), "the teacher stays"
    folder = tmp_path / "run/model"
    if kind == "lora":
        student = AudioLDM.from_pretrained(tiny_model).adapt(folder / "turbo.safetensors")
    else:
        student = AudioLDM.from_pretrained(folder)
    defaults = student.defaults
    few = {"steps": 4, "sampler": "ddim", "grid": "trailing", "guidance": 1.0}
    assert {key: getattr(defaults, key) for key in few} == few
    assert defaults.seconds == before.defaults.seconds
    options = {"seconds": 0.32, "retry_silent": 0}
    plain = before(["rain"], seeds=[0], **few, **options)
    assert not torch.equal(student(["rain"], seeds=[0], **options), plain)
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    assert len(losses) == 3 and all(loss > 0 for loss in losses)
    assert any("val/loss" in row for row in rows)
    assert any("val/diversity" in row for row in rows) == ("adversarial" in name)


def test_a_student_gets_nearer_to_its_teachers_trajectories(settings, tmp_path):
    longer = ["batches=40", "val_every=20", "task.lr=2e-3", "task.warmup=5", "callbacks.ema.decay=null"]
    longer += ["task.trajectories.states=16"]
    fitted("distill/warmup", [*settings, "task.kind=full", *longer])
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    seen = [row["val/loss"] for row in rows if "val/loss" in row]
    assert seen[-1] < 0.8 * seen[0]


@pytest.mark.parametrize("name", ["distill/warmup", "distill/consistency", "distill/adversarial"])
def test_stopping_and_resuming_equals_not_stopping(name, settings, tmp_path):
    whole = fitted(name, [*settings, "batches=4", f"run_dir={tmp_path}/whole"])
    experiment = recipes.build(recipes.load(name, [*settings, "batches=4"]))
    next(c for c in experiment.trainer.callbacks if isinstance(c, StopAfter)).limit = 2
    experiment.fit()
    again = fitted(name, [*settings, "batches=4"])
    assert (experiment.module.batch_count, again.batch_count) == (2, 4)
    pairs = zip(whole.named_parameters(), again.named_parameters(), strict=True)
    assert all(torch.equal(a, b) for (_, a), (_, b) in pairs)


def test_a_lora_is_trained_further_from_its_file(settings, tiny_model, tmp_path):
    pipe = AudioLDM.from_pretrained(tiny_model)
    rng = torch.Generator().manual_seed(0)
    plain = start(pipe.unet, "lora", rank=2, targets=["to_q"], generator=rng)
    first = tmp_path / "turbo.safetensors"
    write(first, replace(plain, base=dict(pipe.hashes)))
    module = fitted("distill/consistency", [*settings, f"run_dir={tmp_path}/more", f"task.adapter={first}"])
    one, two = read(first), read(tmp_path / "more/model/turbo.safetensors")
    assert one.layers.keys() == two.layers.keys() and module.adapter.rank == 2
    factors = [(one.layers[n].factors[k], v) for n, x in two.layers.items() for k, v in x.factors.items()]
    assert any(not torch.equal(a, b) for a, b in factors) and module.teacher.adapted is None
    wrong = recipes.load("distill/consistency", [*settings, "task.adapter=nowhere.safetensors"])
    with pytest.raises(AudioLDMError, match="is not a file"):
        recipes.build(wrong)


def test_prompts_are_enough(settings, tiny_model, tmp_path):
    """One of three prompts is held out, with all its lines; the student of one call has one segment."""
    file = tmp_path / "prompts.txt"
    file.write_text("rain\na dog\nrain\na cat\n")
    data = ["data=prompts", f"data.file={file}", "data.seconds=0.32", "data.val_share=0.34"]
    kept = [part for part in settings if not part.startswith("data")]
    module = fitted("distill/warmup", [*kept, *data, "task.sampling.steps=1"])
    assert module.bank.ways.shape[:2] == (4, 2) and len(module.trainer.datamodule.train) in (2, 3)
    assert (
        AudioLDM.from_pretrained(tiny_model).adapt(tmp_path / "run/model/turbo.safetensors").defaults.steps
        == 1
    )


def test_early_segments_are_learned_from_more_often_and_vectors_lie_between_prompts(settings, tmp_path):
    more = [f"task.trajectories.{each}" for each in ("shares=[3,2,1,1]", "between=1.0", "kept=2")]
    module = fitted("distill/warmup", [*settings, *more])
    drawn = module.bank.draw(14, torch.Generator().manual_seed(0)).sigma
    assert [int((drawn == level).sum()) for level in module.bank.sigmas[:-1]] == [6, 4, 2, 2]
    film = torch.eye(4)[:2] * torch.tensor([[1.0], [3.0]])
    mixed = between(Condition(film=film), 1.0, torch.Generator().manual_seed(0)).film
    torch.testing.assert_close(mixed.norm(dim=1), film.norm(dim=1))
    assert (mixed[:, :2] > 0).all() and not mixed[:, 2:].any()
    with pytest.raises(AudioLDMError, match="1 shares for 4 segments"):
        recipes.build(recipes.load("distill/warmup", [*settings, "task.trajectories.shares=[1]"]))


def test_one_segment_may_begin_at_any_state(settings, tmp_path):
    """A jump from any point of a trajectory to its end."""
    module = fitted("distill/warmup", [*settings, "task.everywhere=true", "task.sampling.steps=1"])
    assert len(module.bank.sigmas) == 5 and not module.bank.ends.any()


def test_levels_that_the_teacher_does_not_visit_are_refused(settings):
    with pytest.raises(AudioLDMError, match="4 steps do not visit the student's 3 levels"):
        recipes.build(recipes.load("distill/warmup", [*settings, "task.sampling.steps=3"]))


@pytest.fixture
def student(tiny_model, tmp_path):
    pipe = AudioLDM.from_pretrained(tiny_model)
    sampling = {"steps": 4, "sampler": "ddim", "grid": "trailing", "guidance": 1.0}
    return pipe, written(tmp_path / "turbo.safetensors", pipe, {"sampling": json.dumps(sampling)})


def written(file, pipe, about):
    """A LoRA that changes nothing, and says ``about``."""
    rng = torch.Generator().manual_seed(0)
    plain = start(pipe.unet, "lora", rank=1, targets=["to_q"], generator=rng)
    write(file, replace(plain, base=dict(pipe.hashes), about=about))
    return file


def test_an_adapter_brings_its_sampling_and_takes_it_along(student):
    pipe, file = student
    before = pipe.defaults
    assert pipe.adapt(file).defaults.steps == 4
    assert pipe.adapt(file).defaults.sampler == "ddim"
    assert pipe.adapt().defaults == before


@pytest.mark.parametrize(
    ("options", "words"), [({"guidance": 2.5}, "guidance=2.5"), ({"steps": 8}, "steps=8"), ({}, None)]
)
def test_a_student_that_is_sampled_in_another_way_says_so_in_a_line(student, options, words):
    pipe, file = student
    pipe.adapt(file)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", AudioLDMWarning)
        pipe(["rain"], seeds=[0], seconds=0.32, retry_silent=0, **options)
    lines = [str(one.message) for one in seen if issubclass(one.category, AudioLDMWarning)]
    assert len(lines) == (words is not None)
    if words:
        assert words in lines[0] and "use ddim, 4 steps and guidance 1" in lines[0]


@pytest.mark.parametrize("sampling", ["{", '{"steps": 0}', '{"speed": 2}', "4"])
def test_a_sampling_that_cannot_be_is_refused(student, sampling):
    pipe, file = student
    written(file, pipe, {"sampling": sampling})
    with pytest.raises(AudioLDMError, match="sampling cannot be read"):
        pipe.adapt(file)
