from concurrent.futures import Future

import pytest
from jsonargparse import ArgumentParser

from racro_pl.reward.cache import CacheError
from racro_pl.reward.grader import Grader
from racro_pl.reward.http import HttpReasoner
from racro_pl.reward.reasoner import Reasoner, Reply
from racro_pl.reward.scorer import Scorer
from racro_pl.reward.unscored import GRADING_TIMED_OUT, UnscoredError, count_reasons
from racro_pl.types import Question
from tests.fakes.reasoner_server import FaultServer

QUESTION = Question("q", (), "<image>How many?", "42", "math")
DOWN = Reply(error="timeout: nothing for 2 s")


def boxed(answer):
    return Reply(text=rf"So \boxed{{{answer}}}")


class Scripted(Reasoner):
    """Takes its replies, in order, from a list; notes what it was asked."""

    def __init__(self, *replies, greedy=False):
        self.replies = list(replies)
        self.asked = []
        self.greedy = greedy

    identity = "scripted"
    deterministic = property(lambda self: self.greedy)

    def check(self):
        pass

    def submit(self, prompts):
        futures = []
        for prompt in prompts:
            self.asked.append(prompt)
            future = Future()
            future.set_result(self.replies.pop(0))
            futures.append(future)
        return futures

    def close(self):
        pass


def score(reasoner, captions, question=QUESTION, **settings):
    return Scorer(reasoner, **settings).submit(question, captions).result()


def test_right_wrong_and_no_answer():
    reasoner = Scripted(boxed("42.0"), boxed("41"), Reply(text="no idea"), Reply(text=""))
    rewards = score(reasoner, ["a", "b", "c", "d"])
    assert rewards.total == (1.0, 0.0, 0.0, 0.0)
    assert rewards.scored == (True, True, True, False)
    assert rewards.reasons[3].startswith("no answer: empty text")
    assert rewards.parts["correct"] == rewards.total
    assert rewards.parts["answered"] == (1.0, 1.0, 0.0, 0.0)
    assert rewards.extracted == (("42.0",), ("41",), (None,), ())
    assert rewards.answers[1] == (r"So \boxed{41}",)
    prompt = reasoner.asked[0][-1]["content"]
    assert prompt.startswith(
        "### The detailed caption of the provided image: a\n\n### Question: How many? Please think"
    )


def test_no_score_is_not_a_zero_score():
    rewards = score(Scripted(boxed(42), DOWN, boxed(41)), ["a", "b", "c"])
    assert rewards.scored == (True, False, True)
    assert rewards.reasons == (None, "timeout: nothing for 2 s", None)
    assert rewards.answers[1] == ()


def test_votes_are_averaged_over_those_that_came_back():
    replies = [boxed(42), boxed(41), boxed(42), boxed(42), DOWN, boxed(41), DOWN, DOWN, DOWN]
    rewards = score(Scripted(*replies), ["a", "b", "c"], votes=3)
    # a: 2 of 3 right; b: 1 of the 2 that came back; c: none came back
    assert rewards.total == (2 / 3, 1 / 2, 0.0)
    assert rewards.scored == (True, True, False)


def test_grading_that_ran_out_of_time_is_no_score(monkeypatch):
    monkeypatch.setattr(Grader, "grade", lambda self, answer, question: None if answer == "hard" else answer == "42")
    rewards = score(Scripted(boxed("hard"), boxed("hard"), boxed("hard"), boxed(42)), ["a", "b"], votes=2)
    assert rewards.scored == (False, True)
    assert rewards.reasons == (GRADING_TIMED_OUT, None)
    assert rewards.total[1] == 1.0  # over the one vote that could be graded


@pytest.mark.parametrize("caption", ["", " \n"])
def test_an_empty_caption_is_zero_and_nobody_is_asked(caption):
    reasoner = Scripted(boxed(42))
    rewards = score(reasoner, [caption, "a"])
    assert (rewards.total, rewards.scored) == ((0.0, 1.0), (True, True))
    assert rewards.parts["empty"] == (1.0, 0.0)
    assert rewards.answers[0] == ()
    assert len(reasoner.asked) == 1


def test_the_reasoner_reads_the_options():
    reasoner = Scripted(boxed("blue"))
    question = Question("q", (), "Which?", "B", "choice", ("red", "blue"))
    assert score(reasoner, ["a"], question).total == (1.0,)
    assert "Which?\nOptions:\nA. red\nB. blue Please think" in reasoner.asked[0][-1]["content"]


def test_a_greedy_reasoner_is_asked_once_and_failures_are_not_kept(tmp_path):
    path = tmp_path / "replies.sqlite"
    reasoner = Scripted(boxed(42), DOWN, boxed(42), greedy=True)
    scorer = Scorer(reasoner, cache_path=path)
    scorer.check()
    first = scorer.submit(QUESTION, ["a", "a", "b"]).result()  # the equal captions share one request
    assert (first.total, first.scored) == ((1.0, 1.0, 0.0), (True, True, False))
    stats = scorer.drain_stats()
    assert (stats["requests"], stats["cache_hit_rate"], stats["unscored/timeout"]) == (2.0, 0.0, 1.0)
    second = scorer.submit(QUESTION, ["a", "b"]).result()
    assert second.total == (1.0, 1.0)
    stats = scorer.drain_stats()
    assert (stats["captions"], stats["requests"], stats["cache_hit_rate"], stats["unscored"]) == (2.0, 1.0, 0.5, 0.0)
    assert len(reasoner.asked) == 3
    scorer.close()
    assert Scorer(Scripted(greedy=True), cache_path=path).submit(QUESTION, ["a", "b"]).result().total == (1.0, 1.0)


def test_a_sampling_reasoner_is_asked_afresh(tmp_path):
    scorer = Scorer(Scripted(boxed(42), boxed(41), boxed(41), boxed(42)), cache_path=tmp_path / "unused", votes=2)
    assert scorer.submit(QUESTION, ["a"]).result().total == (0.5,)
    assert scorer.submit(QUESTION, ["a"]).result().total == (0.5,)
    assert not (tmp_path / "unused").exists()
    assert "cache_hit_rate" not in scorer.drain_stats()


class Seeds(Scripted):
    """Notes its seeds and answers right to even ones."""

    def __init__(self):
        super().__init__()
        self.seeds = []

    def submit_seeded(self, prompts, seeds):
        self.seeds.append(list(seeds))
        self.replies = [boxed(42 + seed % 2) for seed in seeds]
        return self.submit(prompts)


def test_answers_are_seeded_by_step_question_caption_and_vote():
    reasoner = Seeds()
    scorer = Scorer(reasoner, votes=2)
    other = Question("other", (), QUESTION.text, "42", "math")
    for question, seed in ((QUESTION, 1), (QUESTION, 1), (QUESTION, 2), (other, 1)):
        scorer.submit(question, ["a", "a", "b"], seed).result()
    assert reasoner.seeds[0] == reasoner.seeds[1]
    assert len({seed for seeds in reasoner.seeds[1:] for seed in seeds}) == 3 * 3 * 2


def test_a_cached_answer_is_the_one_that_asking_anew_would_give(tmp_path):
    answers = []
    # The second run finds the first one's file, the third does not; each comes to the captions in other steps.
    for path, first in (("kept", 0), ("kept", 3), ("lost", 6)):
        reasoner = Seeds()
        scorer = Scorer(reasoner, votes=2, cache="on", cache_path=tmp_path / path)
        steps = enumerate("xyz", first)
        answers.append([scorer.submit(QUESTION, [str(i), "a"], step).result().answers for step, i in steps])
        assert sum(map(len, reasoner.seeds)) == (0 if answers[1:] and path == "kept" else 2 * 4)
        scorer.close()
    assert answers[0] == answers[1] == answers[2]


def test_shuffled_rewards_follow_from_the_seed_alone():
    def shuffled(scorer, seed):
        scorer.reasoner.replies = [boxed(42)] * 4 + [boxed(1)] * 4
        return scorer.submit(QUESTION, list("abcdefgh"), seed).result().total

    first, second = (Scorer(Scripted(), shuffle=True) for _ in range(2))
    totals = [shuffled(first, seed) for seed in range(5)]
    assert [shuffled(second, seed) for seed in (4, 3, 2, 1, 0)] == totals[::-1]
    assert len(set(totals)) > 1


def test_the_questions_of_a_step_are_shuffled_differently():
    scorer = Scorer(Scripted(*([boxed(42)] * 4 + [boxed(1)] * 4) * 5), shuffle=True)
    asked = [Question(name, (), QUESTION.text, "42", "math") for name in "abcde"]
    assert len({scorer.submit(question, list("abcdefgh"), seed=1).result().total for question in asked}) > 1


def test_a_reply_that_was_cut_while_thinking_counts_as_truncated():
    scorer = Scorer(Scripted(Reply(text="<think>first I", truncated=True)))
    assert scorer.submit(QUESTION, ["a"]).result().scored == (False,)
    stats = scorer.drain_stats()
    assert (stats["truncated"], stats["unscored/no answer"]) == (1.0, 1.0)


def test_a_cache_that_cannot_be_used_is_found_by_the_check(tmp_path):
    path = tmp_path / "replies.sqlite"
    path.write_bytes(b"this is no database, " * 100)
    with pytest.raises(CacheError, match=r"replies\.sqlite cannot be used"):
        Scorer(Scripted(greedy=True), cache_path=path).check()


def test_an_answer_counts_though_the_disk_is_full(tmp_path, caplog):
    reasoner = Scripted(*[Reply(text="So it is. " * 1000 + boxed(42).text)] * 2, greedy=True)
    scorer = Scorer(reasoner, cache_path=tmp_path / "replies.sqlite")
    scorer.check()
    scorer._cache._connection.execute("PRAGMA max_page_count = 1")  # as many as there are
    assert scorer.submit(QUESTION, ["a"]).result().total == (1.0,)
    assert scorer.submit(QUESTION, ["a"]).result().total == (1.0,)
    assert len(reasoner.asked) == 2  # the first one was not kept
    assert len([line for line in caplog.messages if "disk may be full" in line]) == 1


def test_a_cache_that_was_asked_for_keeps_each_vote(tmp_path):
    scorer = Scorer(Scripted(boxed(42), boxed(41)), votes=2, cache="on", cache_path=tmp_path / "replies.sqlite")
    assert scorer.submit(QUESTION, ["a"]).result().total == (0.5,)
    assert scorer.submit(QUESTION, ["a"]).result().extracted == (("42", "41"),)


@pytest.mark.parametrize(
    ("reasoner", "settings", "message"),
    [
        (Scripted(), {"votes": 0}, "got votes=0, expected at least 1"),
        (Scripted(greedy=True), {"votes": 2}, "votes=2 with a greedy reasoner"),
        (Scripted(), {"cache": "yes"}, "expected auto, on or off"),
        (Scripted(), {"max_unscored_share": 1.5}, "max_unscored_share=1.5"),
        (Scripted(), {"grade_limit_s": 0}, "limit_s=0"),
    ],
)
def test_bad_settings_are_refused(reasoner, settings, message):
    with pytest.raises(ValueError, match=message):
        Scorer(reasoner, **settings)


def test_unscored_error_counts_the_kinds():
    reasons = ["timeout: a", "timeout: a", "HTTP 500: b", None]
    assert count_reasons(reasons) == {"timeout": 2, "HTTP 500": 1}
    message = str(UnscoredError.build(reasons, 0.5))
    assert "3 of 4 captions have no score" in message
    assert "2x timeout, 1x HTTP 500. For example: timeout: a. What to do: look whether the reasoner's server" in message


@pytest.mark.parametrize(
    ("reason", "advice"),
    [("HTTP 401: no", "api_key_env"), ("HTTP 302: away", "url"), ("HTTP 422: no", "refuses the prompts"),
     ("HTTP 429: slow", "concurrency"), ("down: odd", "is up")],
)  # fmt: skip
def test_unscored_error_says_what_to_do(reason, advice):
    assert advice in str(UnscoredError.build([reason, None, reason], 0.5)).partition("What to do:")[2]


def test_over_http_every_fault_is_unscored_and_nothing_is_invented():
    script = ["ok", "garbage", "400", "ok", "empty choices", "null content", "ok", "500"]
    with FaultServer(script=script, answer=lambda messages: r"\boxed{42}") as server:
        reasoner = HttpReasoner(server.url, concurrency=1, deadline_s=100.0, backoff_s=0.01, attempts=2)
        scorer = Scorer(reasoner)
        rewards = scorer.submit(QUESTION, [f"caption {i}" for i in range(8)]).result()
        scorer.close()
    assert rewards.scored == (True, False, False, True, False, False, True, False)
    assert [total for total, scored in zip(rewards.total, rewards.scored, strict=True) if scored] == [1.0, 1.0, 1.0]
    stats = scorer.drain_stats()
    assert stats["seconds"] > 0
    assert {name: stats[name] for name in stats if name.startswith("unscored")} == {
        "unscored": 5.0, "unscored/bad response": 2.0, "unscored/no answer": 1.0, "unscored/HTTP 400": 1.0,
        "unscored/HTTP 500": 1.0,
    }  # fmt: skip


def test_the_scorer_is_built_from_yaml(tmp_path):
    config = tmp_path / "reward.yaml"
    config.write_text(
        "reward:\n  reasoner:\n    class_path: racro_pl.reward.HttpReasoner\n    init_args:\n"
        "      url: http://127.0.0.1:1\n      temperature: 0\n"
        "      extra_body: {chat_template_kwargs: {enable_thinking: false}}\n"
        f"  cache_path: {tmp_path / 'replies.sqlite'}\n"
    )
    parser = ArgumentParser()
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(Scorer, "reward")
    scorer = parser.instantiate_classes(parser.parse_args([f"--config={config}"])).reward
    assert scorer.reasoner.extra_body == {"chat_template_kwargs": {"enable_thinking": False}}
    assert scorer.reasoner.deterministic


def test_shuffled_rewards_keep_their_sum_and_lose_their_captions():
    scorer = Scorer(Scripted(*[boxed("42")] * 10, *[boxed("41")] * 30), shuffle=True)
    rewards = scorer.submit(QUESTION, [str(index) for index in range(40)]).result()
    assert sum(rewards.total) == 10
    assert sum(rewards.total[:10]) < 10
    assert rewards.parts["correct"] == (1.0,) * 10 + (0.0,) * 30


def test_shuffling_leaves_unscored_captions_alone():
    rewards = score(Scripted(boxed("42"), DOWN, boxed("41"), DOWN), ["a", "b", "c", "d"], shuffle=True)
    assert rewards.scored == (True, False, True, False)
    assert rewards.total[1] == rewards.total[3] == 0.0
    assert sum(rewards.total) == 1.0
