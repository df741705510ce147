"""The captioner's side under Lightning: shares of several processes, and how a prediction ends."""

import json
import os
import signal
from types import SimpleNamespace

import pytest
import torch

from racro_pl.data import BenchmarkDataModule
from racro_pl.data.sampling import in_order
from racro_pl.evaluation import captioner_module
from racro_pl.evaluation.captioner_module import CaptionerModule, batch_size_for, open_trainer, predict
from racro_pl.evaluation.pipeline import Evaluation, Place
from racro_pl.evaluation.settings import CaptionerSettings, EvaluationSettings
from racro_pl.figure_world.world import figure_questions
from racro_pl.terminal import Console
from racro_pl.types import RacroError
from tests.helpers.preloaded import CONTEXT
from tests.helpers.service import SizeWriter


class Job:
    """Writes numbers."""

    title = "numbers"

    def __init__(self, size: int, written: int = 0) -> None:
        self.size, self.done, self.ended = size, list(range(written)), False

    def left(self) -> int:
        return self.size - len(self.done)

    def write(self, items, writer):
        for item in items:
            if item not in self.done:
                self.done.append(item)
                yield

    def end(self) -> None:
        self.ended = True


@pytest.fixture
def writers(monkeypatch):
    opened: list[SizeWriter] = []
    monkeypatch.setattr(captioner_module, "open_writer", lambda *_: opened.append(SizeWriter()) or opened[-1])
    return opened


def run(job: Job) -> None:
    module = CaptionerModule(CaptionerSettings("here"), lambda: job)
    predict(open_trainer("cpu", "1", 1), module, in_order(range(job.size), 3, (0, 1)))


def test_each_batch_is_written_once_and_the_captioner_let_go(writers, capsys):
    job = Job(7, written=2)
    run(job)
    assert (job.done, job.ended) == (list(range(7)), True)
    assert [writer.closed for writer in writers] == [True]
    assert "numbers: 5 of 5" in capsys.readouterr().err


def test_no_captioner_is_loaded_where_nothing_is_left(writers):
    run(Job(4, written=4))
    run(Job(0))
    assert writers == []


def test_an_error_and_ctrl_c_come_through_and_let_the_captioner_go(writers, monkeypatch):
    for error in (RacroError("no such thing"), KeyboardInterrupt()):

        def fail(*_, error=error):
            raise error
            yield

        monkeypatch.setattr(Job, "write", fail)
        before = signal.getsignal(signal.SIGINT)
        try:
            with pytest.raises(type(error)):
                run(Job(3))
        finally:
            signal.signal(signal.SIGINT, before)  # Lightning ignores a second one
    assert [writer.closed for writer in writers] == [True, True]


def run_into_sigterm() -> None:
    captioner_module.open_writer = lambda *_: SizeWriter()
    Job.write = lambda *_: os.kill(os.getpid(), signal.SIGTERM) or iter([None])
    run(Job(3))


def test_sigterm_ends_the_process_at_once():
    # Not a fork of this one: what another thread of it holds would never be let go there.
    child = CONTEXT.Process(target=run_into_sigterm)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGTERM


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_a_process_captions_asks_about_and_scores_the_same_questions(tmp_path, ranks, monkeypatch):
    rows = [{"id": str(index), "question": "what ?", "answer": "1", "answer_type": "math", "image": "a.png"}
            for index in range(3)]  # fmt: skip
    (tmp_path / "a.png").write_bytes(figure_questions("test", 1)[0].images[0].data)
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    entries = [f"own={tmp_path / 'own.jsonl'}", "figures"]
    plan = EvaluationSettings(entries, "embedded:figure-captioner", modes=["direct"]).plan()
    data = BenchmarkDataModule(*entries, limit=5)
    data.setup("predict")
    shares = []
    for rank in range(ranks):
        data.trainer = SimpleNamespace(distributed_sampler_kwargs={"rank": rank, "num_replicas": ranks})
        place = Place(torch.device("cpu"), rank, ranks)
        mine = Evaluation(plan, data.benchmarks, tmp_path, place, Console(quiet=True)).mine()
        shares.append([question.id for _, question in mine])
        scored = [q.id for loaded in data.benchmarks for q in loaded.questions[rank::ranks]]
        loaded = [q.id for loader in data.predict_dataloader() for batch in loader for q in batch]
        assert shares[-1] == loaded == scored
    assert sorted(sum(shares, [])) == sorted(q.id for loaded in data.benchmarks for q in loaded.questions)


def test_a_server_is_kept_busy_over_many_items():
    assert batch_size_for(CaptionerSettings("folder", batch_size=8)) == 8
    assert batch_size_for(CaptionerSettings("http://127.0.0.1:1/v1", batch_size=64)) == 2048
