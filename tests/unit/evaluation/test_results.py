"""Cells, averages, comparisons, and the file they are kept in."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from racro_pl.evaluation.paper import PAPER_ROWS, SEVEN, paper_rows
from racro_pl.evaluation.report.formatting import pair_title
from racro_pl.evaluation.results import Results, System, compare, compare_systems, summarise
from racro_pl.evaluation.statistics import PairedTest
from racro_pl.types import RacroError
from tests.unit.evaluation.toys import DIRECT, PIPELINE, PLAIN, WORST, outcome, results


def test_labels_and_systems():
    assert DIRECT.label == "base · direct"
    assert PIPELINE.label == "base → reasoner · caption + tentative"
    with pytest.raises(ValueError, match="only direct has none"):
        System("base", "caption", None)
    with pytest.raises(ValueError, match="expected one of direct, caption"):
        System("base", "other", "reasoner")


def test_a_cell():
    found = [
        outcome("1", True, category="maths"),
        outcome("2", False, extracted=None, category="maths"),
        outcome("3", False, category="logic"),
    ]
    cell = summarise(PLAIN, DIRECT, found, expected=4, unanswered=1, rule="strict")
    assert (cell.headline, cell.n, cell.expected, cell.unanswered) == (pytest.approx(1 / 3), 3, 4, 1)
    assert not cell.complete
    assert cell.low <= cell.headline <= cell.high
    assert cell.unextracted == pytest.approx(1 / 3)
    assert cell.categories == {"category": {"logic": (0.0, 1), "maths": (0.5, 2)}}


def test_unanswered_questions_are_not_wrong():
    cell = summarise(PLAIN, DIRECT, [outcome("1", True), outcome("2", True)], 4, 2, "strict")
    assert cell.headline == 1.0
    nothing = summarise(PLAIN, DIRECT, [], 4, 4, "strict")
    assert (nothing.headline, nothing.low, nothing.high, nothing.n) == (None, None, None, 0)


def test_the_headline_is_the_benchmarks_own():
    # group 1 wrong, group 2 right: 1 of 2; single answers 2 of 3
    cell = summarise(WORST, DIRECT, [outcome("1/a", True), outcome("1/b", False), outcome("2/a", True)], 3, 0, "strict")
    assert (cell.headline, cell.figures, cell.headline_name) == (
        0.5,
        {"average": pytest.approx(2 / 3)},
        "worst case",
    )


def seven_cells():
    cell = summarise(PLAIN, DIRECT, [outcome("1", True), outcome("2", False)], 2, 0, "strict")
    return [replace(cell, benchmark=name, headline=0.1 * i) for i, name in enumerate(SEVEN)]


def average(cells):
    return replace(example(), cells=tuple(cells)).average(DIRECT)


def test_the_average_needs_all_seven():
    cells = seven_cells()
    # (0 + 0.1 + ... + 0.6) / 7 = 0.3
    assert average(cells).value == pytest.approx(0.3)
    assert average(cells).complete
    assert average(cells[1:]) is None
    assert average([replace(cells[0], headline=None), *cells[1:]]) is None
    assert not average([replace(cells[0], expected=3), *cells[1:]]).complete
    assert average([*cells, replace(cells[0], benchmark="figures", headline=1.0)]).value == pytest.approx(0.3)
    # Cells of another system do not stand in.
    assert average([replace(cells[0], system=PIPELINE), *cells[1:]]) is None


def test_the_seven_are_the_columns_of_the_papers_table():
    assert SEVEN == ("mathvista", "mathvision", "mathverse", "mmmu", "wemath", "dynamath", "logicvista")


def test_the_papers_averages_are_means_of_its_rows():
    for row in PAPER_ROWS:
        assert sum(row.scores.values()) / 7 == pytest.approx(row.average, abs=0.0011), row.label
    assert paper_rows(["figures"]) == ()
    assert paper_rows(["figures", "mmmu"]) == PAPER_ROWS


def test_a_comparison_is_over_common_questions():
    first = [outcome("1", True), outcome("2", False), outcome("3", False), outcome("5", True)]
    second = [outcome("3", True), outcome("1", True), outcome("2", True), outcome("4", False)]
    found = compare(PLAIN, DIRECT, first, PIPELINE, second)
    assert (found.n, found.difference) == (3, pytest.approx(2 / 3))
    assert (found.test, found.unit, found.groups) == (PairedTest(0, 2, 0.5), "questions", 3)
    assert compare(PLAIN, DIRECT, first[:1], PIPELINE, second[:1]) is None


def test_a_group_is_compared_by_what_both_answered_of_it():
    # The first failed 1/b, which the second never answered: on 1/a alone they are equal.
    first, second = [outcome("1/a", True), outcome("1/b", False)], [outcome("1/a", True)]
    assert compare(WORST, DIRECT, first, PIPELINE, second).difference == 0.0


def test_a_comparison_is_in_the_unit_of_the_headline():
    # Three seeds of two variants. Of single answers the second gains three and loses one; of seeds it gains 1 and 2.
    names = ("1/a", "1/b", "2/a", "2/b", "3/a", "3/b")
    first = [outcome(name, name in ("1/b", "3/a")) for name in names]
    second = [outcome(name, name[0] in "12") for name in names]
    found = compare(WORST, DIRECT, first, PIPELINE, second)
    assert (found.n, found.groups, found.unit) == (6, 3, "seed questions")
    assert found.test == PairedTest(lost=0, gained=2, p_value=0.5)
    assert found.difference == pytest.approx(2 / 3)


def test_before_against_after_with_the_same_reasoner_comes_first():
    systems = [System(who, mode, reads) for who in ("before", "after", "third")
               for mode, reads in (("direct", None), ("caption", "A"), ("caption", "B"))]  # fmt: skip
    found = compare_systems(PLAIN, {system: [outcome("1", True), outcome("2", False)] for system in systems})
    told = [pair_title(each.first, each.second) for each in found]
    assert told == [
        "after against before, both · direct",
        "after against before, both → A · caption",
        "after against before, both → B · caption",
        "third against before, both · direct",
        "third against before, both → A · caption",
        "third against before, both → B · caption",
        "before → A · caption, against before · direct",
        "before → B · caption, against before · direct",
    ]


def example():
    found = {DIRECT: [outcome("1", True), outcome("2", False)], PIPELINE: [outcome("1", True), outcome("2", True)]}
    return replace(results(PLAIN, found), paper=PAPER_ROWS[:2])


def test_results_come_back_from_json():
    before = example()
    assert Results.from_json(before.to_json()) == before
    empty = results(PLAIN, {DIRECT: []})
    assert Results.from_json(empty.to_json()) == empty
    assert before.systems == (DIRECT, PIPELINE)
    assert before.benchmarks == {"plain": "Plain"}
    assert before.cell("plain", PIPELINE).headline == 1.0
    assert before.cell("other", PIPELINE) is None
    assert before.average(DIRECT) is None


def change(path, value):
    data = json.loads(example().to_json())
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "got version 'list', expected 2"),
        (change(["version"], 1), "got version 1, expected 2"),
        (change(["extra"], 2), "results: unknown extra"),
        (change(["cells", 0, "n"], "2"), r"results.cells\[0\].n: got '2', expected a value of type int"),
        (change(["cells", 0, "n"], True), "expected a value of type int"),
        (change(["cells", 0, "low"], "x"), "expected a number"),
        (change(["cells", 0, "system", "mode"], "x"), "expected 'direct' or 'caption' or 'caption"),
        (change(["cells", 0, "system", "reasoner"], "x"), "only direct has none"),
        (change(["cells", 0], {}), r"results.cells\[0\]: missing benchmark"),
        (change(["cells"], {}), "expected a list"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(text, message):
    with pytest.raises(RacroError, match=message):
        Results.from_json(text)


def test_settings_must_be_plain():
    with pytest.raises(ValueError, match="plain values only"):
        replace(example(), settings={"x": object()}).to_json()
    with pytest.raises(ValueError, match="JSON compliant"):
        replace(example(), settings={"x": float("nan")}).to_json()


def test_questions_without_a_class_stand_under_a_name():
    found = [outcome("1", True, category="maths"), outcome("2", False), outcome("3", True)]
    cell = summarise(PLAIN, DIRECT, found, 3, 0, "strict")
    assert cell.categories == {"category": {"maths": (1.0, 1), "uncategorised": (0.5, 2)}}
    assert summarise(PLAIN, DIRECT, found[1:], 2, 0, "strict").categories == {}
