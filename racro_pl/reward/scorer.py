"""From captions to rewards: ask the reasoner, read its answers, grade them.

No score is not a zero score: a caption whose reasoner calls all failed or brought no visible answer, or whose answers
could not be graded in time, comes back with ``scored`` False and the reason. It never gets a made-up reward.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from racro_pl.reward.cache import ReplyCache, default_cache_path, reply_key
from racro_pl.reward.grader import Grader
from racro_pl.reward.reasoner import USAGE_FIELDS, Reasoner, Reply, Usage
from racro_pl.reward.reward_function import RewardFunction, RewardFuture
from racro_pl.reward.unscored import GRADING_TIMED_OUT, count_reasons
from racro_pl.seeds import seed_for
from racro_pl.text.answers import extract_answer
from racro_pl.text.choices import with_choices
from racro_pl.text.reasoner_prompt import reasoner_messages
from racro_pl.text.thoughts import without_thoughts
from racro_pl.types import Messages, Question, Rewards, require


@dataclass(frozen=True)
class _Verdict:
    """What became of one caption: one caption's row of ``Rewards``."""

    correct: float = 0.0
    answered: float = 0.0
    empty: float = 0.0
    reason: str | None = None
    answers: tuple[str, ...] = ()
    extracted: tuple[str | None, ...] = ()


@dataclass(frozen=True)
class _Query:
    """A prompt, its address, and its answer where the cache has it."""

    messages: Messages
    key: Hashable
    """The cache's key; without a cache, something that no other query has."""
    seed: int
    cached: Reply | None = None


Vote = tuple[Hashable, Reply | Future[Reply]]
"""One prompt to the reasoner: its key, and its answer from the cache or on its way."""


def require_budget(budget: float | None, reasoners: Sequence[Reasoner]) -> None:
    """Refuse a budget that bounds nothing; those of several reasoners without a price cost nothing."""
    require(budget is None or budget > 0, f"budget={budget}", "more than 0, or null for no bound")
    require(
        budget is None or any(reasoner.priced for reasoner in reasoners),
        f"budget={budget} with {'a reasoner that has' if len(reasoners) == 1 else 'reasoners that have'} no price",
        "price_per_million_tokens of those that cost, or no budget",
    )


class Scorer(RewardFunction):
    """Rewards captions by what a frozen reasoner answers from them: 1 for the gold answer, 0 for another or none."""

    def __init__(
        self,
        reasoner: Reasoner,
        votes: int = 1,
        cache: Literal["auto", "on", "off"] = "auto",
        cache_path: Path | None = None,
        max_unscored_share: float = 0.5,
        grade_limit_s: float = 5.0,
        shuffle: bool = False,
        budget: float | None = None,
        max_answerless_steps: int | None = 3,
    ) -> None:
        """
        Args:
            reasoner: The model that answers.
            votes: Answers asked per caption; the reward is the share of right ones among those that came back.
            cache: Whether answers are kept on disk. ``auto``: when the reasoner is greedy. ``on`` with a sampling
                reasoner freezes each caption's answers.
            cache_path: The cache's file. Default: ``racro_pl/replies.sqlite`` in the user's cache folder.
            max_unscored_share: Share of a step's captions without a score above which the run stops.
            grade_limit_s: Seconds that one symbolic comparison may take.
            shuffle: Hand each group's rewards to its captions at random: a control, from which nothing can be
                learnt. The parts stay with the captions that earned them.
            budget: Money after which the run stops with a checkpoint, in the currency of the reasoner's
                ``price_per_million_tokens``. A resumed run counts what was spent before. Default: no bound.
            max_answerless_steps: Steps in a row in which replies came and none held an answer after which the run
                stops; null never stops it (a rehearsal with a model too small to answer).
        """
        require(votes >= 1, f"votes={votes}", "at least 1")
        require(cache in ("auto", "on", "off"), f"cache={cache!r}", "auto, on or off")
        require(0 <= max_unscored_share <= 1, f"max_unscored_share={max_unscored_share}", "a share from 0 to 1")
        require(
            votes == 1 or not reasoner.deterministic,
            f"votes={votes} with a greedy reasoner, whose votes are all the same",
            "votes=1, or a reasoner temperature above 0",
        )
        require_budget(budget, [reasoner])
        patience = max_answerless_steps
        require(patience is None or patience >= 1, f"max_answerless_steps={patience}", "at least 1, or null")
        self.reasoner = reasoner
        self.votes = votes
        self.budget = budget
        self.max_answerless_steps = patience
        self.max_unscored_share = max_unscored_share
        self.cache_path = cache_path
        self.caches = cache == "on" or (cache == "auto" and reasoner.deterministic)
        self._cache = ReplyCache(Path(cache_path) if cache_path else default_cache_path()) if self.caches else None
        self._grader = Grader(grade_limit_s)
        self.shuffle = shuffle
        self._stats: Counter[str] = Counter()
        self._drained = (0, 0, 0.0, Usage())

    def check(self) -> None:
        """Make sure that the reasoner answers and that the cache can be used.

        Raises:
            RacroError: one of them fails; the message says what to do.
        """
        self.reasoner.check()
        if self._cache is not None:
            self._cache.open()

    def submit(self, question: Question, captions: Sequence[str], seed: int = 0) -> RewardFuture:
        """Send captions to the reasoner, without waiting.

        A thinking captioner's thoughts are cut: the reasoner must not read the captioner's own solution. A caption
        that is empty, or nothing but thoughts, is scored 0 without asking: the reasoner could only guess, and a lucky
        guess would teach the captioner to say nothing. Its part ``empty`` is 1 and it has no answers.

        Args:
            question: what the captions are about; the reasoner reads its text and options, never its images.
            captions: G texts.
            seed: of this step's random choices, wherever they are made here. An answer that is cached follows from
                the question and the caption alone: cached or asked again, it is the same.
        """
        text = with_choices(question.text, question.choices)
        captions = [without_thoughts(caption) for caption in captions]
        rows = [
            [
                self._look_up(self._messages(text, caption), vote, seed_for(seed, question.id, index, vote))
                for vote in range(self.votes)
            ]
            if caption.strip()
            else []
            for index, caption in enumerate(captions)
        ]
        # Where answers are shared, equal captions of a group are asked once.
        missing = {query.key: query for row in rows for query in row if query.cached is None}
        asked = [query.messages for query in missing.values()], [query.seed for query in missing.values()]
        futures = dict(zip(missing, self.reasoner.submit_seeded(*asked), strict=True))
        self._stats["captions"] += len(captions)
        self._stats["requests"] += len(futures)
        votes = [[(query.key, query.cached or futures[query.key]) for query in row] for row in rows]
        return RewardFuture(lambda: self._grade(question, votes, seed_for(seed, question.id)))

    def _messages(self, question_text: str, caption: str) -> Messages:
        """What the reasoner is asked about one caption."""
        return reasoner_messages(question_text, caption)

    def _look_up(self, messages: Messages, vote: int, seed: int) -> _Query:
        if self._cache is None:
            return _Query(messages, object(), seed)
        key = reply_key(self.reasoner.identity, messages, vote)
        return _Query(messages, key, seed_for(key), self._cache.get(key))

    def _reply(self, key: Hashable, answer: Reply | Future[Reply]) -> Reply:
        """Wait for an answer; a good one that is not in the cache yet goes there."""
        if isinstance(answer, Future):
            answer = answer.result()
            if self._cache is not None and isinstance(key, str) and answer.text is not None:
                self._cache.put(key, answer)
        return answer.visible()

    def _grade(self, question: Question, votes: Sequence[Sequence[Vote]], seed: int) -> Rewards:
        verdicts = [self._grade_caption(question, row) for row in votes]
        reasons = tuple(verdict.reason for verdict in verdicts)
        for kind, count in count_reasons(reasons).items():
            self._stats["unscored"] += count
            self._stats[f"unscored/{kind}"] += count
        return Rewards(
            total=self._totals(verdicts, seed),
            parts={
                "correct": tuple(verdict.correct for verdict in verdicts),
                "answered": tuple(verdict.answered for verdict in verdicts),
                "empty": tuple(verdict.empty for verdict in verdicts),
            },
            scored=tuple(reason is None for reason in reasons),
            reasons=reasons,
            answers=tuple(verdict.answers for verdict in verdicts),
            extracted=tuple(verdict.extracted for verdict in verdicts),
        )

    def _totals(self, verdicts: Sequence[_Verdict], seed: int) -> tuple[float, ...]:
        totals = [verdict.correct for verdict in verdicts]
        if self.shuffle:
            places = [index for index, verdict in enumerate(verdicts) if verdict.reason is None]
            earned = [totals[index] for index in places]
            random.Random(seed).shuffle(earned)
            for index, total in zip(places, earned, strict=True):
                totals[index] = total
        return tuple(totals)

    def _grade_caption(self, question: Question, votes: Sequence[Vote]) -> _Verdict:
        if not votes:
            return _Verdict(empty=1.0)
        replies = [self._reply(*vote) for vote in votes]
        answers = tuple(reply.text for reply in replies if reply.text is not None)
        extracted = tuple(extract_answer(answer) for answer in answers)
        self._stats["replies"] += sum(reply.came for reply in replies)
        self._stats["truncated"] += sum(reply.truncated for reply in replies)
        self._stats["answered"] += sum(answer is not None for answer in extracted)
        if not answers:
            return _Verdict(reason=replies[0].error)
        graded = [self._grader.grade(answer, question) for answer in extracted]
        known = [right for right in graded if right is not None]
        return _Verdict(
            correct=sum(known) / len(known) if known else 0.0,
            answered=sum(answer is not None for answer in extracted) / len(extracted),
            reason=None if known else GRADING_TIMED_OUT,
            answers=answers,
            extracted=extracted,
        )

    @property
    def spent(self) -> float:
        """Money that the reasoner's answers cost so far in this process."""
        return self.reasoner.usage.cost

    def drain_stats(self) -> dict[str, float]:
        """Counts since the last call, for the log.

        Returns:
            ``captions`` submitted, ``requests`` sent to the reasoner, ``replies`` that came from it or from the cache,
            those ``truncated`` by its length limit and those ``answered``: with an answer that can be graded.
            ``prompt_tokens`` and ``completion_tokens`` that were used, ``unmetered`` replies that do not tell, and with
            a price the ``cost``. ``seconds`` during which the reasoner worked, ``unscored`` captions and
            ``unscored/<kind>`` of each kind of reason, and with a cache ``cache_hit_rate`` (share of lookups).
        """
        hits, misses = (self._cache.hits, self._cache.misses) if self._cache is not None else (0, 0)
        seconds, usage = self.reasoner.busy_seconds, self.reasoner.usage
        old_hits, old_misses, old_seconds, old_usage = self._drained
        self._drained = (hits, misses, seconds, usage)
        used = usage - old_usage
        stats = dict.fromkeys(("captions", "requests", "unscored", "replies", "truncated", "answered"), 0.0)
        stats |= {"seconds": seconds - old_seconds, **{name: float(getattr(used, name)) for name in USAGE_FIELDS}}
        if not self.reasoner.priced:
            del stats["cost"]
        stats.update({name: float(count) for name, count in self._stats.items()})
        self._stats.clear()
        if self._cache is not None:
            lookups = hits - old_hits + misses - old_misses
            stats["cache_hit_rate"] = (hits - old_hits) / lookups if lookups else 0.0
        return stats

    def close(self) -> None:
        """Close the reasoner, the grader's worker and the cache. Using the scorer again opens them again."""
        self.reasoner.close()
        self._grader.close()
        if self._cache is not None:
            self._cache.close()
