"""A reasoner that answers nothing, or costs too much, ends its run with a checkpoint, and nothing else does."""

from __future__ import annotations

import csv
import dataclasses

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger

from racro_pl.policy.captioner import Captioner
from racro_pl.reward import HttpReasoner, Reply, Scorer, SeveralReasoners
from racro_pl.reward.gain import GainScorer
from racro_pl.training.reasoner_guard import AnswerlessError, BudgetError, ReasonerGuard
from racro_pl.types import RacroError
from tests.fakes.dialects import StandIn, completion
from tests.fakes.reasoner_server import by_caption
from tests.fakes.reasoners import ScriptedReasoner
from tests.unit.training.conftest import fit, make_module


def rows(root) -> list[dict[str, str]]:
    with (root / "run/version_0/metrics.csv").open() as file:
        return list(csv.DictReader(file))


def fit_logged(module, root, **options):
    logger = CSVLogger(root, name="run", version="version_0", flush_logs_every_n_steps=1)
    return fit(module, root, logger=logger, log_every_n_steps=1, **options)


def served(module, url, **settings):
    client = {"attempts": 1, "deadline_s": 100.0, "model": "tiny"} | settings
    budget = client.pop("budget", None)
    module.scorer = Scorer(HttpReasoner(url, **client), cache="off", budget=budget)
    return module


# ---------------------------------------------------------------------- no answers


def test_three_steps_without_any_answer_stop_the_run_and_two_only_warn(folder, tmp_path):
    module = make_module(folder, lambda prompt: "I cannot say.")
    with (
        pytest.warns(UserWarning, match="step 1: none of the reasoner's 16 replies held an answer"),
        pytest.raises(
            AnswerlessError, match=r"(?s)in 3 steps in a row none of the .*What to do: .*stopped-step=3\.ckpt"
        ),
    ):
        fit(module, tmp_path, steps=9)
    saved = torch.load(tmp_path / "checkpoints/stopped-step=3.ckpt", weights_only=True)
    assert saved["global_step"] == 3
    # With a reasoner that answers it continues from there.
    resumed = make_module(folder)
    assert fit(resumed, tmp_path, steps=4, ckpt=str(tmp_path / "checkpoints/stopped-step=3.ckpt")).global_step == 4


def test_one_answer_in_between_begins_the_count_again(folder, tmp_path):
    module = make_module(folder)

    class Now(Callback):
        def on_train_batch_start(self, trainer, pl_module, *args):
            said = trainer.global_step % 3 == 2
            pl_module.scorer.reasoner.script = by_caption if said else lambda prompt: "I cannot say."

    assert fit(module, tmp_path, steps=6, callbacks=[Now()]).global_step == 6


def test_a_reasoner_that_only_thinks_has_no_zeros(folder, tmp_path):
    """With nothing but thoughts there is no score, so the share of unscored captions stops the run at once."""
    with StandIn(lambda body: (200, completion(None, reasoning_content=r"\boxed{red}"))) as server:
        module = served(make_module(folder), server.url)
        with pytest.raises(
            RacroError, match=r"16x no answer\. For example: no answer: only thoughts.*reasoning parser"
        ):
            fit(module, tmp_path, steps=4)
    assert module.updates_done == 0
    rewards = [rewards for _, rewards in module.last_step]
    assert not any(flag for reward in rewards for flag in reward.scored)


def test_the_guard_judges_replies_not_faults_and_not_empty_captions():
    scorer = Scorer(ScriptedReasoner(by_caption), cache="off")
    guard = ReasonerGuard(lambda: scorer)
    silent = {"reasoner/replies": 0.0, "reasoner/answered": 0.0, "reasoner/truncated": 0.0}
    answerless = silent | {"reasoner/replies": 8.0}
    # In between nothing comes, which is no reply without an answer; and objective qa asks no reasoner.
    steps = [answerless, silent, {}, answerless, answerless]
    found = [guard.after_step(number, dict(figures)) for number, figures in enumerate(steps)]
    assert found[:-1] == [None] * 4
    assert isinstance(found[-1], AnswerlessError)
    scorer.max_answerless_steps = None  # for a rehearsal: warned of, never stopped
    assert guard.after_step(6, dict(answerless)) is None
    with pytest.raises(ValueError, match="max_answerless_steps=0, expected at least 1"):
        Scorer(ScriptedReasoner(by_caption), max_answerless_steps=0)


# ---------------------------------------------------------------------- tokens and money


def test_tokens_cuts_and_money_of_each_step_are_logged(folder, tmp_path):
    def reply(body):
        cut = len(body["messages"][-1]["content"]) % 2 == 0
        return 200, completion(r"\boxed{red}", finish="length" if cut else "stop", usage=(100, 10))

    with StandIn(reply) as server:
        module = served(make_module(folder), server.url, price_per_million_tokens=(1000.0, 10000.0))
        fit_logged(module, tmp_path, steps=2, limit_val_batches=1.0, val_check_interval=1)
        asked = len(server.bodies)
    first, second = [row for row in rows(tmp_path) if row["reasoner/requests"]]
    for row in (first, second):
        count = int(float(row["reasoner/requests"]))
        assert float(row["reasoner/prompt_tokens"]) == 100 * count
        assert float(row["reasoner/completion_tokens"]) == 10 * count
        assert float(row["reasoner/cost"]) == pytest.approx(0.2 * count)
        assert float(row["reasoner/answered"]) == float(row["reasoner/replies"]) == count
        assert 0 <= float(row["reasoner/truncated"]) <= count
    # The total holds the check and the validation between the steps too; the last validation is not in a step's row.
    assert float(first["reasoner/spent"]) == pytest.approx(0.2 * (1 + float(first["reasoner/requests"])))
    assert float(second["reasoner/spent"]) > float(first["reasoner/spent"]) + float(second["reasoner/cost"])
    assert module._guard.spent == pytest.approx(0.2 * asked)


def test_without_a_price_no_money_is_logged(folder, tmp_path):
    fit_logged(make_module(folder), tmp_path, steps=1)
    header = rows(tmp_path)[0]
    assert {"reasoner/truncated", "reasoner/answered", "reasoner/prompt_tokens", "reasoner/completion_tokens"} <= set(
        header
    )
    assert not {"reasoner/cost", "reasoner/spent"} & set(header)


def test_a_budget_stops_the_run_and_a_resumed_run_counts_what_was_spent(folder, tmp_path):
    price = {"price_per_million_tokens": (10_000.0, 0.0)}  # a reply costs 1
    with StandIn(lambda body: (200, completion(by_caption(str(body["messages"])), usage=(100, 9)))) as server:
        module = served(make_module(folder), server.url, budget=20.0, **price)
        with pytest.raises(BudgetError, match=r"(?s)has cost .*, and the budget is 20.*stopped-step=2\.ckpt"):
            fit(module, tmp_path, steps=9)
        spent = len(server.bodies)
        assert 20 <= spent <= 1 + 2 * 16
        stopped = str(tmp_path / "checkpoints/stopped-step=2.ckpt")
        assert torch.load(stopped, weights_only=True)["racro_spent"] == pytest.approx(spent)
        # The same budget is spent: nothing is asked.
        with pytest.raises(BudgetError, match="has cost"):
            fit(served(make_module(folder), server.url, budget=20.0, **price), tmp_path, steps=9, ckpt=stopped)
        assert len(server.bodies) == spent
        # With a higher one the run continues, and so does the count.
        module = served(make_module(folder), server.url, budget=spent + 10.0, **price)
        with pytest.raises(BudgetError, match=r"stopped-step=3\.ckpt"):
            fit(module, tmp_path, steps=9, ckpt=stopped)
        assert module._guard.spent == pytest.approx(len(server.bodies))


@pytest.mark.parametrize("budget", [0, -1.0])
def test_a_budget_of_nothing_is_refused(budget):
    for build in (Scorer, GainScorer):
        with pytest.raises(ValueError, match=f"got budget={budget}, expected more than 0"):
            build(HttpReasoner(price_per_million_tokens=(1.0, 1.0)), budget=budget)


def test_a_budget_needs_a_price():
    free, paid = HttpReasoner(model="a"), HttpReasoner(model="b", price_per_million_tokens=(1.0, 2.0))
    with pytest.raises(ValueError, match=r"budget=5\.0 with a reasoner that has no price, expected price_per_million"):
        Scorer(free, budget=5.0)
    with pytest.raises(ValueError, match="with reasoners that have no price"):
        SeveralReasoners([free, HttpReasoner(model="c")], budget=5.0)
    assert SeveralReasoners([free, paid], budget=5.0).budget == 5.0
    for prices in ((-1.0, 0.0), (float("nan"), 0.0), (0.0, float("inf"))):
        with pytest.raises(ValueError, match="expected two prices of 0 or more"):
            HttpReasoner(price_per_million_tokens=prices)


def test_a_server_without_usage_cannot_be_priced():
    with StandIn(lambda body: (200, completion(usage=None))) as server:
        with pytest.raises(RacroError, match="reports no usage, so price_per_million_tokens cannot be charged"):
            HttpReasoner(server.url, price_per_million_tokens=(1.0, 1.0)).check()
        HttpReasoner(server.url).check()


def test_several_reasoners_and_the_gain_add_up_their_tokens():
    from tests.unit.reward.test_dialects import QUESTION

    price = {"price_per_million_tokens": (1e6, 0.0)}
    with (
        StandIn(lambda body: (200, completion(usage=(200, 1)))) as one,
        StandIn(lambda body: (200, completion(usage=(300, 2)))) as two,
    ):
        both = SeveralReasoners(
            [HttpReasoner(one.url, "tiny", **price), HttpReasoner(two.url, "tiny", temperature=0.5, **price)],
            cache="off",
        )
        both.submit(QUESTION, ["a", "b"]).result()
        stats = both.drain_stats()
        assert (stats["prompt_tokens"], stats["completion_tokens"], stats["cost"]) == (1000, 6, pytest.approx(1000))
        assert (stats["replies"], stats["answered"]) == (4, 4)
        assert both.spent == pytest.approx(1000)
        both.close()
        gain = GainScorer(HttpReasoner(one.url, "tiny", **price), cache="off")
        gain.submit(QUESTION, ["a", "b"]).result()
        stats = gain.drain_stats()
        assert (stats["requests"], stats["replies"], stats["prompt_tokens"]) == (3, 3, 600)
        assert gain.spent == pytest.approx(600)
        gain.close()


# ---------------------------------------------------------------------- a captioner's thoughts


def test_the_reasoner_never_reads_a_captioners_thoughts(folder, tmp_path, monkeypatch):
    """In training and in validation, with a log of both, and an unclosed thought counted as an empty caption."""
    texts = (
        "<think>It is \\boxed{red}.</think>\n\na figure",
        "<think>It is \\boxed{red}, or",
        "no thought",
        "a figure",
    )
    real = Captioner.generate

    def generate(self, prompts, group_size, *rest, **options):
        made = real(self, prompts, group_size, *rest, **options)
        return dataclasses.replace(made, texts=tuple((texts * len(prompts))[: len(prompts) * group_size]))

    monkeypatch.setattr(Captioner, "generate", generate)
    read = []
    module = make_module(folder, lambda prompt: read.append(prompt) or r"\boxed{red}")
    trainer = fit(module, tmp_path, steps=1, limit_val_batches=1.0, val_check_interval=1)
    assert len(read) == 3 * 4 + 6  # each fourth caption is empty in training, two of the eight in the validation
    assert not any("<think" in prompt or "It is" in prompt for prompt in read)
    assert any(prompt.startswith("### The detailed caption of the provided image: a figure\n") for prompt in read)
    for _, rewards in module.last_step:
        assert rewards.total == (1.0, 0.0, 1.0, 1.0)
        assert rewards.parts["empty"] == (0.0, 1.0, 0.0, 0.0)
    assert trainer.callback_metrics["caption/only_thoughts_share"] == 0.25


def test_a_cached_text_without_an_answer_is_no_zero():
    assert Reply(text="<think>so").visible().error.startswith("no answer: only thoughts")
