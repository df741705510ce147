"""The experiments: which runs there are, what they plug in, and the tables that are published."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest
from experiment_parts import evaluations, reckoning, runs
from experiment_parts.collect import accuracy_by_step
from experiment_parts.describing import described_answer
from experiment_parts.habit import habitual_text
from experiment_parts.report import PARTS, PICTURES, fill, merged, spread, tables
from experiment_parts.rewards import GenericCaptionScorer, TrustingReasoner, facts_told

from racro_pl.cli import run
from racro_pl.figure_world.world import figure_questions
from racro_pl.reckoning_world.world import audit_caption, reckoning_questions, true_caption
from racro_pl.reward import InProcessReasoner
from racro_pl.reward.described_answer import description_of
from racro_pl.text.answers import last_boxed
from racro_pl.text.reasoner_prompt import reasoner_messages

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "docs/results/experiments.json"
QUESTION = figure_questions("train", 1)[0]
FACTS, ASKED = QUESTION.metadata["facts"], QUESTION.metadata["key"]


@pytest.fixture(scope="module")
def results():
    return json.loads(RESULTS.read_text())


def test_rows_of_two_tables_are_run_once():
    names = [run.name for run in runs.planned(list(runs.TABLES), [1, 2, 3])]
    assert len(names) == len(set(names)) == 3 * len(ROWS)
    assert names.count("cro-1") == 1


ROWS = {row.name: row for table in runs.TABLES.values() for row in table}
ALIKE = ("general_cro", "looking_cro", "looking_qa", "looking_joint", "looking_cro_qa", "figure_joint")
"""Their options are those of other rows, put together in other ways."""


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=name, marks=[pytest.mark.slow] * (name in ALIKE)) for name, row in ROWS.items()]
)
def test_every_command_is_one_that_fit_takes(row, tmp_path, monkeypatch, capsys):
    options = runs.Run(row, 7).options(tmp_path)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["racro-pl"])
    with pytest.raises(SystemExit) as end:
        run([*options, "--print_config"])
    shown = capsys.readouterr()
    assert end.value.code == 0, shown.err
    assert f"name: {row.name}-7" in shown.out
    assert "seed_everything: 7" in shown.out


def test_told_facts_count_once_and_only_when_true():
    wrong = next(value for value in ("one", "two", "three") if value != FACTS["count of shapes"])
    told = f"count of shapes {FACTS['count of shapes']} ."
    assert facts_told(QUESTION, told) == 1 / len(FACTS)
    assert facts_told(QUESTION, f"{told} {told}") == 1 / len(FACTS)
    assert facts_told(QUESTION, f"count of shapes {wrong} .") == 0
    assert facts_told(QUESTION, f"count of shapes \\boxed{{ {FACTS['count of shapes']}}}") == 0
    assert facts_told(QUESTION, " ".join(f"{key} {value} ." for key, value in FACTS.items())) == 1


def test_the_generic_reward_pays_for_facts_whatever_the_reasoner_says():
    scorer = GenericCaptionScorer(InProcessReasoner("embedded:figure-reasoner"))
    captions = [f"{ASKED} {FACTS[ASKED]} .", " ".join(f"{key} {FACTS[key]} ." for key in FACTS if key != ASKED)]
    rewards = scorer.submit(QUESTION, captions).result()
    scorer.close()
    assert rewards.total == (1 / len(FACTS), 1 - 1 / len(FACTS))
    assert rewards.parts["correct"] == (1.0, 0.0)


def test_the_reckoning_worlds_generic_reward_pays_for_facts_whatever_is_asked():
    question = reckoning_questions("train", 1)[0]
    told = question.metadata["sentences"]
    every = " ".join(told.values())
    assert reckoning.facts_told(question, every) == 1
    assert reckoning.facts_told(question, f"{told['shade']} {told['shade']} red has 0 dots.") == 1 / len(told)
    scorer = reckoning.GenericCaptionScorer(InProcessReasoner("embedded:reckoning-strong", temperature=0.0))
    rewards = scorer.submit(question, [f" {true_caption(question)}", f" {told['shade']}"]).result()
    scorer.close()
    assert rewards.total == (len(question.metadata["colors"]) / len(told), 1 / len(told))
    assert rewards.parts["correct"] == (1.0, 0.0)


def test_the_reckoning_tables_have_a_row_for_each_reader_and_each_run():
    keys = [*reckoning.REASONERS, *(name + evaluations.TENTATIVE for name in reckoning.REASONERS), "direct"]
    names = [f"{row.name}-1" for row in runs.RECKONING_CONTROLS]
    found = {name: dict.fromkeys(keys, 0.5) for name in (evaluations.BEFORE, *names)}
    found["reckoning-1"] = {key: place / 10 for place, key in enumerate(keys)}
    ceilings = {name: {"accuracy": 0.9} for name in reckoning.REASONERS}
    results = {
        "seeds": [1],
        "tables": ["reckoning", "reckoning_controls"],
        "runs": {},
        "evaluation": found,
        "ceilings": ceilings,
    }
    blocks = tables(results)
    assert "| strong, from the caption (never met) | 50.0 | 20.0 | 90.0 |" in blocks["reckoning"]
    assert "| weak, from caption and tentative answer | 50.0 | 30.0 |  |" in blocks["reckoning"]
    assert "| CRO: paid when the weak reasoner is right | 0.0 | 10.0 | 20.0 | 60.0 |" in blocks["reckoning_controls"]
    assert blocks["reckoning_controls"].count("\n") == 2 + len(runs.RECKONING_CONTROLS)


def test_the_narrow_table_sets_sums_apart():
    narrow, strong = reckoning.NARROW, f"{reckoning.STRONG}: "
    before = {"accuracy": 0.1, "accuracy/sum": 0.0, f"{strong}accuracy": 0.3, f"{strong}accuracy/sum": 0.35}
    afters = [{**before, f"{strong}accuracy/sum": share} for share in (0.9, 1.0)]
    figures = {"accuracy": 0.4, "accuracy/sum": 0.0}
    block = tables(
        {
            "seeds": [1, 2],
            "tables": ["reckoning_narrow"],
            "runs": {f"reckoning_narrow-{n}": {"before": before, "after": after} for n, after in enumerate(afters, 1)},
            "ceilings": {narrow: figures, reckoning.STRONG: {"accuracy": 0.99, "accuracy/sum": 1.0}},
        }
    )["reckoning_narrow"]
    assert "| narrow (asked in training): sums | 0.0 | 0.0 (0.0–0.0) | 0.0 |" in block
    assert "| strong (never met): sums | 35.0 | 95.0 (90.0–100.0) | 100.0 |" in block
    assert "| strong (never met): all questions | 30.0 | 30.0 (30.0–30.0) | 99.0 |" in block


def test_the_described_table_has_a_row_for_what_was_paid():
    keys = ("direct", "reckoning-weak", "reckoning-strong", "asked_counts_stated", "true_sentences")
    names = [runs.DESCRIBING, *(f"{row.name}-{seed}" for row in runs.DESCRIBED for seed in (1, 2))]
    found = {name: {key: (place + column) / 20 for column, key in enumerate(keys)} for place, name in enumerate(names)}
    block = tables({"seeds": [1, 2], "tables": ["reckoning_described"], "described": found})["reckoning_described"]
    assert "| before | 0.0 | 5.0 | 10.0 | 15.0 | 20.0 |" in block
    assert "| paid for the right answer alone | 7.5 (5.0–10.0) | 12.5 (10.0–15.0) |" in block
    assert "| paid for answer and description | 17.5 (15.0–20.0) |" in block


def test_a_text_looks_at_what_is_asked_or_boxes_at_random():
    question, rng = reckoning_questions("train", 2)[1], random.Random(0)
    told = set(question.metadata["sentences"].values())
    for looks in (1.0, 0.0):
        texts = [described_answer(question, looks, rng) for _ in range(40)]
        for text in texts:
            sentences = [f"{part.strip()}." for part in description_of(text).split(".") if part.strip()]
            assert len(set(sentences)) == 3
            assert set(sentences) <= told
            assert audit_caption(question, description_of(text)).asked_stated == bool(looks)
        assert ({last_boxed(text) for text in texts} == {question.answer}) == bool(looks)


def test_the_sheet_holds_the_captions_of_before_and_after_and_all_answers(tmp_path):
    for captioner in (evaluations.BEFORE, "reckoning-1", "reckoning-2"):
        captions, answers = [], []
        for key in ("test-0-0", "test-0-1", "test-0-9"):
            row = {"captioner": captioner, "id": key}
            captions += [{**row, "task": task, "text": f"{task} of {captioner}"} for task in ("caption", "tentative")]
            answers += [
                {**row, "mode": mode, "reasoner": name, "text": f"{name[-1]} \\boxed{{ {name} {mode}}}"}
                for name in reckoning.REASONERS
                for mode in ("caption", "caption+tentative")
            ]
        folder = tmp_path / ("before" if captioner == evaluations.BEFORE else "after")
        folder.mkdir(exist_ok=True)
        for name, rows in {"captions": captions, "answers": answers}.items():
            with (folder / f"{name}.jsonl").open("a") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)
    told = reckoning.sheet([tmp_path / "before", tmp_path / "after"], "reckoning-1", count=2)
    assert list(told) == ["test-0-0", "test-0-1"]
    assert told["test-0-1"]["after"] == {
        "caption": "caption of reckoning-1",
        "answers": {name: f"{name} caption" for name in reckoning.REASONERS},
    }
    assert told["test-0-1"]["before"]["caption"] == f"caption of {evaluations.BEFORE}"


def test_curves_of_further_readers_go_from_the_test_before_to_the_test_after(tmp_path):
    ends = {f"{name}: accuracy": 0.25 for name in reckoning.REASONERS[1:]}
    (tmp_path / "held_out.json").write_text(json.dumps({"before": ends, "after": dict.fromkeys(ends, 0.75)}))
    lines = [{"step": step} | dict.fromkeys(reckoning.REASONERS[1:], step / 100) for step in (10, 20)]
    (tmp_path / "readers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    curves = reckoning.reader_curves(tmp_path, [(0, 0.1)])
    assert curves == {"reckoning-weak": [(0, 0.1)]} | dict.fromkeys(
        reckoning.REASONERS[1:], [(0, 0.25), (10, 0.1), (20, 0.75)]
    )


def test_the_trusting_reasoner_repeats_boxes_and_slips_on_some_descriptions():
    boxed = reasoner_messages(QUESTION.text, "color of moon \\boxed{ blue}")
    described = reasoner_messages(QUESTION.text, f"{ASKED} {FACTS[ASKED]} .")
    with_slips = TrustingReasoner(slips=0.5)
    futures = with_slips.submit_seeded([boxed, described] * 40, list(range(80)))
    answers = [last_boxed(future.result().text).strip() for future in futures]
    again = [future.result().text for future in with_slips.submit_seeded([described] * 2, [1, 3])]
    with_slips.close()
    assert answers[::2] == ["blue"] * 40
    assert set(answers[1::2]) == {FACTS[ASKED], "unknown"}
    assert 8 <= answers[1::2].count("unknown") <= 32
    assert [last_boxed(text).strip() for text in again] == answers[1:4:2]


def test_the_habit_is_half_answers_and_half_true_facts():
    rng = random.Random(0)
    texts = [habitual_text(QUESTION, 0.5, rng) for _ in range(200)]
    boxed = [text for text in texts if "boxed" in text]
    assert 70 <= len(boxed) <= 130
    assert {last_boxed(text).strip() for text in boxed} == {FACTS[ASKED]}
    assert {facts_told(QUESTION, text) for text in texts if "boxed" not in text} == {2 / len(FACTS)}


def test_a_curve_goes_from_the_test_before_to_the_test_after(tmp_path):
    (tmp_path / "held_out.json").write_text('{"before": {"accuracy": 0.25}, "after": {"accuracy": 0.75}}')
    (tmp_path / "metrics.csv").write_text("step,val/accuracy,other\n9,0.5,\n10,,3\n19,0.7,\n")
    assert accuracy_by_step(tmp_path) == {0: 0.25, 10: 0.5, 20: 0.75}
    (tmp_path / "metrics.csv").write_text("step,other\n0,0.5\n79,\n")  # validated at neither step
    assert accuracy_by_step(tmp_path) == {0: 0.25, 80: 0.75}


def test_a_command_that_fails_names_its_log(tmp_path):
    with pytest.raises(RuntimeError, match="status 3; see .*x.log"):
        runs.execute(["bash", "-c", "echo words; exit 3"], tmp_path / "x.log")
    assert "words" in (tmp_path / "x.log").read_text()


def test_shares_are_told_with_their_range():
    assert spread([1.0]) == "100.0"
    assert spread([0.5, 0.6, 0.4]) == "50.0 (40.0–60.0)"


def test_pages_are_filled_between_their_marks(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- one -->\nold\n<!-- /one -->\nb\n")
    fill(page, {"one": "| new |"})
    assert page.read_text() == "a\n<!-- one -->\n| new |\n<!-- /one -->\nb\n"
    with pytest.raises(ValueError, match="<!-- two -->"):
        fill(page, {"two": ""})


def test_the_published_tables_are_those_of_the_published_figures(results):
    blocks = tables(results)
    assert set(blocks) == {*runs.TABLES, "quickstart"}
    page, readme = (ROOT / "docs/experiments.md").read_text(), (ROOT / "README.md").read_text()
    for name, block in blocks.items():
        assert block in (readme if name == "quickstart" else page), f"{name}: run scripts/experiments.py --publish"


def test_the_readme_shows_the_means_of_the_reckoning_table():
    page, readme = (ROOT / "docs/experiments.md").read_text(), (ROOT / "README.md").read_text()
    for name in ("weak", "middle", "strong"):
        cells = next(line for line in page.splitlines() if line.startswith(f"| {name}, from the caption (")).split("|")
        before, after, ceiling = (cell.split()[0] for cell in cells[2:5])
        assert f") | {before} | {after} | {ceiling} |" in next(
            line for line in readme.splitlines() if line.startswith(f"| {name} (")
        )


def test_tables_made_anew_join_those_that_are_published():
    old = {"seeds": [1], "tables": ["against"], "runs": {"a": 1, "b": 1}, "evaluation": {"a": 1}, "captions": {}}
    new = {
        "seeds": [1],
        "tables": ["reckoning"],
        "runs": {"b": 2},
        "evaluation": {},
        "captions": {},
        "ceilings": {"x": 3},
        "sheet": {},
        "described": {},
        "general": {},
        "costs": {"b": 4},
    }
    assert merged(old, new) == {
        "seeds": [1], "tables": ["against", "reckoning"], "runs": {"a": 1, "b": 2}, "evaluation": {"a": 1},
        "ceilings": {"x": 3}, "captions": {}, "sheet": {}, "described": {},
        "general": {}, "costs": {"b": 4},
    }  # fmt: skip
    once = merged(old, new | {"seeds": [2]})
    assert (once["seeds"], once["seeds_of"]) == ([1], {"reckoning": [2]})
    assert "seeds_of" not in merged(once, new)


def test_where_all_tables_are_new_nothing_of_taken_out_rows_is_left():
    new = {name: {} for name in PARTS} | {"seeds": [1], "tables": list(runs.TABLES), "runs": {"b": 2}}
    assert merged({"seeds": [1], "tables": ["against"], "runs": {"a": 1, "b": 1}}, new)["runs"] == {"b": 2}


def test_the_pictures_are_drawn_from_the_published_figures(results, tmp_path):
    page = (ROOT / "docs/experiments.md").read_text()
    for name, picture in PICTURES.items():
        picture.draw(results, tmp_path / f"{name}.png")
        assert 10_000 < (tmp_path / f"{name}.png").stat().st_size < 200_000
        assert f"(images/experiments_{name}.png)" in page
