"""The order of training questions: how often each comes, that it can be told again, and what is refused."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from racro_pl.data.curriculum import Curriculum
from racro_pl.data.datamodule import RacroDataModule
from racro_pl.data.readers.base import Drops, Reader, ReadResult
from racro_pl.data.sampling import QuestionSampler
from racro_pl.types import Question, RacroError

COUNT = 12


def questions() -> list[Question]:
    """Categories a, b, c in turn; pass rates 0, .1, ... but for every fourth question."""
    return [
        Question(str(i), (), "?", "1", "math", category="abc"[i % 3], metadata={"rate": None if i % 4 == 3 else i / 10})
        for i in range(COUNT)
    ]


def epoch(curriculum: Curriculum, number: int, solved: frozenset[str] = frozenset(), seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed * 1000 + number)
    return curriculum.order(questions(), solved, number, generator)


def test_without_options_the_order_is_that_of_a_plain_shuffle():
    plain = torch.randperm(COUNT, generator=torch.Generator().manual_seed(3)).tolist()
    assert epoch(Curriculum(), 3) == plain
    assert epoch(Curriculum(category_weights={"a": 1.0}), 3) == plain


def test_weights_are_how_often_questions_come():
    """a: 2, b: 1, c: 0 over 4 questions each: of 12 draws an epoch, 8 and 4 and none; each question of a twice."""
    curriculum = Curriculum(category_weights={"a": 2.0, "c": 0.0})
    counts = Counter(epoch(curriculum, 0))
    assert counts == {0: 2, 3: 2, 6: 2, 9: 2, 1: 1, 4: 1, 7: 1, 10: 1}
    # Weights that do not come out even: .5 of a against 1 of b and c, that is 12 * .5 / 10 = .6 of each a an epoch.
    often = Counter(i for number in range(500) for i in epoch(Curriculum(category_weights={"a": 0.5}), number))
    assert all(often[i] / 500 == pytest.approx(0.6 if i % 3 == 0 else 1.2, abs=0.1) for i in range(COUNT))


def test_copies_of_a_question_do_not_stand_side_by_side():
    """c weighs nothing, so that a and b come 1.5 times on average: a question that comes twice is met at two times."""
    order = epoch(Curriculum(category_weights={"c": 0.0}), 0)
    twice = [number for number, count in Counter(order).items() if count == 2]
    assert len(twice) == 4
    assert any(order[order.index(number) + 1] != number for number in twice)


def test_the_order_is_a_function_of_seed_epoch_and_what_was_solved():
    curriculum = Curriculum(category_weights={"a": 2.0}, solved_weight=0.0)
    assert epoch(curriculum, 5) == epoch(curriculum, 5)
    assert epoch(curriculum, 5) != epoch(curriculum, 6) != epoch(curriculum, 6, seed=1)
    assert not {1, 2} & set(epoch(curriculum, 5, frozenset({"1", "2"})))
    # Nothing left to draw: all of it again.
    everything = frozenset(str(i) for i in range(COUNT))
    assert sorted(epoch(Curriculum(solved_weight=0.0), 5, everything)) == list(range(COUNT))


def test_easiest_first_in_the_first_epoch():
    curriculum = Curriculum(pass_rate="rate", easiest_first=True)
    rates = [0.5 if i % 4 == 3 else i / 10 for i in epoch(curriculum, 0)]  # .5: the median of 0 .1 .2 .4 .5 .6 .8 .9 1
    assert rates == sorted(rates, reverse=True)
    assert epoch(curriculum, 1) == epoch(Curriculum(), 1)


def test_pass_rates_out_of_bounds_are_left_out_and_counted():
    drops = Drops()
    kept = Curriculum(pass_rate="rate", lowest=0.15, highest=0.8).select(questions(), drops)
    assert [question.id for question in kept] == ["2", "3", "4", "5", "6", "7", "8", "11"]  # 3, 7 and 11 have none
    assert drops.counts == {"pass rate out of bounds": 4}


@pytest.mark.parametrize(
    ("curriculum", "message"),
    [
        (Curriculum(pass_rate="PassRate"), "'PassRate', which no question has; they have rate"),
        (Curriculum(category_weights={"d": 2.0, "a": 1.0}), "names 'd'; this data has 'a', 'b', 'c'"),
        (Curriculum(category_weights={"a": 0, "b": 0, "c": 0}), "gives every category 0"),
    ],
)
def test_what_the_data_does_not_have_is_refused(curriculum, message):
    with pytest.raises(RacroError, match=message):
        curriculum.select(questions(), Drops())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pass_rate": "rate", "lowest": 0.9, "highest": 0.1}, "expected 0 <= lowest <= highest <= 1"),
        ({"easiest_first": True}, "need pass_rate"),
        ({"category_weights": {"a": -1.0}}, "a weighs -1.0; expected 0 or more"),
        ({"solved_weight": -0.1}, "solved_weight"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Curriculum(**options)


class Listed(Reader):
    """Reads the questions above."""

    def read(self, split):
        return ReadResult(questions())


def drawn(data: RacroDataModule, number: int) -> list[str]:
    loader = data.train_dataloader()
    assert isinstance(loader.sampler, QuestionSampler)
    loader.sampler.set_epoch(number)
    return [question.id for batch in loader for question in batch]


def test_what_is_solved_counts_from_the_next_epoch_on_and_comes_back_from_a_checkpoint():
    data = RacroDataModule(Listed(), questions_per_step=4, curriculum=Curriculum(solved_weight=0.0))
    first = drawn(data, 0)
    data.note_solved({"1": True, "2": True, "3": False})
    assert drawn(data, 0) == first  # the epoch under way keeps its order, for a run that is resumed in it
    state = data.state_dict()
    second = drawn(data, 1)
    assert not {"1", "2"} & set(second)
    assert len(second) == COUNT

    resumed = RacroDataModule(Listed(), questions_per_step=4, curriculum=Curriculum(solved_weight=0.0))
    resumed.load_state_dict(state)
    assert drawn(resumed, 0) == first
    assert drawn(resumed, 1) == second
    data.note_solved({"1": False})
    assert "1" in drawn(data, 2)


def test_ranks_share_a_weighted_epoch():
    data = RacroDataModule(Listed(), questions_per_step=4, curriculum=Curriculum(category_weights={"a": 3.0}))
    shares = [list(QuestionSampler(COUNT, 1, rank, 2, data._order)) for rank in range(2)]
    together = [index for pair in zip(*shares, strict=True) for index in pair]
    assert together == list(QuestionSampler(COUNT, 1, 0, 1, data._order))
