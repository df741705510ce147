"""The data module under a real Trainer: what it keeps, says and refuses, and in which order questions come."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from racro_pl.data import FigureWorldReader, Reader, ReadResult, datamodule
from racro_pl.data.datamodule import RacroDataModule
from racro_pl.data.sampling import QuestionSampler, in_order
from racro_pl.text.captioner_prompt import PromptError
from racro_pl.training.distributed import disconnect_at_exit
from racro_pl.types import ImageRef, Question, RacroError


def question(name: str, words: int = 1, category: str = "") -> Question:
    return Question(name, (ImageRef(data=b"x"),), "w " * words, "1", "math", category=category)


class ListReader(Reader):
    def __init__(self, dropped: Counter[str] | None = None, **splits: list[Question]) -> None:
        self.splits = splits
        self.dropped = dropped or Counter()
        self.reads: list[str] = []

    def read(self, split):
        self.reads.append(split)
        return ReadResult(self.splits.get(split, []), self.dropped)


class Recorder(LightningModule):
    """Notes which questions it gets; counts a token per word and cannot build the prompt of a question called bad."""

    def __init__(self) -> None:
        super().__init__()
        # No backward pass: after one on a device's thread, in whatever test, autograd refuses forked processes.
        self.automatic_optimization = False
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[list[str]] = []
        self.evaluated: list[list[str]] = []

    def setup(self, stage: str) -> None:
        disconnect_at_exit(self.trainer)

    def count_prompt_tokens(self, item: Question) -> int:
        if item.id == "bad":
            raise PromptError("2 tags, 1 image")
        return len(item.text.split())

    def training_step(self, batch, batch_idx):
        self.seen.append([item.id for item in batch])
        self.optimizers().step()

    def validation_step(self, batch, batch_idx):
        self.evaluated.append([item.id for item in batch])

    test_step = validation_step

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        return batch

    def configure_optimizers(self):
        return torch.optim.SGD([self.weight], 0.0)


def make(reader: Reader, step: int = 3, **options) -> RacroDataModule:
    return RacroDataModule(reader, questions_per_step=step, **({"eval_batch_size": 2} | options))


def trainer(root, steps: int = 1, **options) -> Trainer:
    return Trainer(
        accelerator="cpu", max_steps=steps, max_epochs=-1, logger=False, default_root_dir=root,
        enable_model_summary=False, enable_progress_bar=False, num_sanity_val_steps=0,
        **({"enable_checkpointing": False} | options),
    )  # fmt: skip


def ten() -> list[Question]:
    return [question(str(index)) for index in range(10)]


def run(data: RacroDataModule, root, steps: int, **options) -> list[list[str]]:
    module = Recorder()
    trainer(root, steps, **options).fit(module, datamodule=data)
    return module.seen


def test_each_epoch_has_its_own_order_from_seed_and_epoch_alone(tmp_path):
    torch.manual_seed(1)
    seen = run(make(ListReader(train=ten())), tmp_path, 6)
    # 10 questions, 3 a step: 3 steps an epoch, one question left out.
    first, second = sum(seen[:3], []), sum(seen[3:], [])
    assert [len(batch) for batch in seen] == [3] * 6
    assert len(set(first)) == len(set(second)) == 9
    assert first != second
    torch.manual_seed(2)
    assert run(make(ListReader(train=ten())), tmp_path, 6) == seen
    assert run(make(ListReader(train=ten()), seed=2), tmp_path, 6) != seen


def test_loading_draws_nothing_from_the_global_random_stream(tmp_path):
    data = make(ListReader(train=ten()))
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    list(data.train_dataloader())
    assert torch.rand(1) == expected


@pytest.mark.parametrize("stop", [1, 2, 3, 5])
def test_a_resumed_run_goes_on_with_the_next_question(tmp_path, stop):
    whole = run(make(ListReader(train=ten())), tmp_path, 8)
    saver = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    first = run(make(ListReader(train=ten())), tmp_path, stop, callbacks=[saver], enable_checkpointing=True)
    module = Recorder()
    checkpoint = str(tmp_path / f"step={stop}.ckpt")
    trainer(tmp_path, 8).fit(module, datamodule=make(ListReader(train=ten())), ckpt_path=checkpoint)
    assert first + module.seen == whole


def test_a_step_has_the_same_questions_on_any_number_of_ranks():
    def step(ranks: int, number: int, size: int = 50, per_step: int = 12) -> set[int]:
        share = per_step // ranks
        taken = []
        for rank in range(ranks):
            sampler = QuestionSampler(size, 1, rank, ranks)
            sampler.set_epoch(4)
            taken += list(sampler)[number * share : (number + 1) * share]
        assert len(taken) == per_step
        return set(taken)

    for number in range(4):
        assert step(1, number) == step(2, number) == step(3, number) == step(4, number)


def test_shuffled_shares_are_equal_and_ordered_shares_are_whole():
    assert [len(list(QuestionSampler(11, 1, rank, 3))) for rank in range(3)] == [3, 3, 3]
    shares = [list(QuestionSampler(11, None, rank, 3)) for rank in range(3)]
    assert sorted(sum(shares, [])) == list(range(11))
    assert [len(QuestionSampler(11, None, rank, 3)) for rank in range(3)] == [len(share) for share in shares]


def test_unusable_and_long_prompts_are_dropped_and_said(tmp_path, caplog):
    items = [question("1"), question("long", words=6), question("2", words=5), question("bad")]
    data = make(ListReader(Counter({"no answer": 2}), train=items, validation=[question("v")]), 2, max_prompt_tokens=5)
    with caplog.at_level("INFO"):
        run(data, tmp_path, 1)
    assert [item.id for item in data.questions["train"]] == ["1", "2"]
    assert "data: train 2 kept, 4 dropped: no answer 2, prompt too long 1, prompt cannot be built 1" in caplog.messages
    assert "question long left out: prompt too long: 6 tokens, the limit is 5" in caplog.messages


def test_validation_is_in_order_and_complete(tmp_path):
    data = make(ListReader(train=ten(), validation=ten()[:5]))
    module = Recorder()
    trainer(tmp_path).validate(module, datamodule=data)
    assert module.evaluated == [["0", "1"], ["2", "3"], ["4"]]


def test_without_validation_questions_a_run_trains_and_says_so(tmp_path, caplog):
    with caplog.at_level("INFO"):
        assert len(run(make(ListReader(train=ten())), tmp_path, 4)) == 4
    assert caplog.messages.count("data: no validation questions; the run will not validate") == 1


def test_a_split_is_read_once_and_only_when_needed(tmp_path):
    reader = ListReader(train=ten(), test=ten())
    data = make(reader)
    runner = trainer(tmp_path)
    runner.fit(Recorder(), datamodule=data)
    runner.fit(Recorder(), datamodule=data)
    assert reader.reads == ["train", "validation"]
    assert data.categories("test") == data.categories("test")
    assert reader.reads == ["train", "validation", "test"]


@pytest.mark.parametrize(
    ("reader", "method", "message"),
    [
        (ListReader(), "fit", "ListReader has no train questions; expected at least one. Name a file"),
        (ListReader(train=ten()), "validate", "has no validation questions"),
        (ListReader(train=ten()[:2]), "fit", "2 train questions are fewer than one step's 3; lower data."),
        (ListReader(Counter({"no answer": 4, "no image": 1})), "fit",
         r"none of the 5 train rows can be used \(no answer 4, no image 1\).*Check the data file"),
    ],
)  # fmt: skip
def test_data_that_cannot_be_trained_on_stops_the_run_before_a_model_is_built(tmp_path, reader, method, message):
    class NeverBuilt(Recorder):
        def configure_model(self):
            raise AssertionError("built")

    with pytest.raises(RacroError, match=message):
        getattr(trainer(tmp_path), method)(NeverBuilt(), datamodule=make(reader))


@pytest.mark.parametrize("name", ["questions_per_step", "eval_batch_size", "max_prompt_tokens"])
def test_sizes_below_one_are_refused(name):
    with pytest.raises(RacroError, match=f"data: {name} is 0; expected 1 or more"):
        RacroDataModule(ListReader(), **{name: 0})


def test_ranks_must_share_a_step_evenly(monkeypatch):
    data = make(ListReader(train=ten()), 3)
    monkeypatch.setattr(datamodule, "place_of", lambda trainer: (0, 2))
    with pytest.raises(
        RacroError, match="questions_per_step is 3, which 2 ranks cannot share evenly; use a multiple of 2"
    ):
        data.setup("fit")


def test_two_processes_share_every_step_and_repeat_nothing(tmp_path):
    """Under Lightning's own DDP, which replaces no sampler; both processes make equally many steps.

    Forked: a new interpreter would import torch again, twice.
    """
    items = [question(str(index)) for index in range(11)]
    alone = run(make(ListReader(train=items), 4), tmp_path, 4)
    together = trainer(
        tmp_path, 4, strategy="ddp_fork", devices=2, callbacks=[_Write(tmp_path)], val_check_interval=4,
        check_val_every_n_epoch=None,
    )  # fmt: skip
    together.fit(Recorder(), datamodule=make(ListReader(train=items, validation=items), 4))
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    steps = zip(first["seen"], second["seen"], strict=True)
    assert [sorted(mine + other) for mine, other in steps] == [sorted(batch) for batch in alone]
    evaluated = sum(first["evaluated"] + second["evaluated"], [])
    assert sorted(evaluated, key=int) == [str(index) for index in range(11)]


class _Write(Callback):
    """Leaves what a process saw in a file: its memory is gone when it ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_end(self, trainer, pl_module):
        record = {"seen": pl_module.seen, "evaluated": pl_module.evaluated}
        (self.folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(record))


def test_question_types_and_audits_come_from_the_data():
    data = RacroDataModule(FigureWorldReader(train=8, validation=0, test=4))
    assert data.categories("test") == ["color", "count", "fill", "shade"]
    first = data.questions["train"][0]
    fact = f"{first.metadata['key']} {first.answer} ."
    assert data.audit_names() == ("asked_fact_stated", "true_sentences")
    assert data.audit_caption(first, fact) == {"asked_fact_stated": 1.0, "true_sentences": 1.0}
    assert data.audit_caption(first, f"{fact} color of moon red .")["true_sentences"] == 0.5
    assert data.audit_caption(first, "") == {"asked_fact_stated": 0.0, "true_sentences": 0.0}
    assert make(ListReader()).audit_caption(first, fact) == {}


def test_the_figure_world_refuses_a_negative_count():
    with pytest.raises(RacroError, match="got test: -1; expected 0 or more questions"):
        FigureWorldReader(test=-1)


def test_a_rank_without_questions_has_one_batch_of_none():
    """A loader without batches ends the loop on its rank alone."""
    assert [list(in_order(["a", "b"], 4, (rank, 3))) for rank in range(3)] == [[["a"]], [["b"]], [[]]]
    assert [list(in_order("abc", 1, (rank, 2))) for rank in range(2)] == [[["a"], ["c"]], [["b"]]]
