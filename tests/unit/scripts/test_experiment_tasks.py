"""What the tables need, as tasks: who waits for whom, what is finished already, and the way back to figures."""

from __future__ import annotations

import json
from collections import Counter

import yaml
from experiment_parts import runs
from experiment_parts.collect import collect
from experiment_parts.evaluations import EMBEDDED, EVALUATIONS
from experiment_parts.report import tables
from experiment_parts.runs import TABLES
from experiment_parts.schedule import by_urgency
from experiment_parts.tasks import MEASURED, expected, needed_by, tasks_of

SEEDS = [1, 2]


def planned(out, *names, published=None):
    return {task.name: task for task in tasks_of(names, SEEDS, out, published or {})}


def finish(out, name, **held_out):
    """As a run leaves it."""
    folder = out / name / "version_0"
    folder.mkdir(parents=True)
    figures = {"before": {"accuracy": 0.25}, "after": {"accuracy": 0.75}}
    (folder / "held_out.json").write_text(json.dumps(figures))
    (folder / "metrics.csv").write_text("step,other\n79,1\n")
    (out / f"{name}.cost.json").write_text('{"seconds": 61.4, "cpu_seconds": 50.0}')
    return folder


def test_a_finished_run_is_found_and_a_stopped_one_is_not(tmp_path):
    run = runs.Run(runs.CRO, 1)
    assert run.folder(tmp_path) is None
    for version in (2, 10, 11):
        (tmp_path / f"cro-1/version_{version}").mkdir(parents=True)
    for version in (2, 10):
        (tmp_path / f"cro-1/version_{version}/held_out.json").write_text("{}")
    assert run.folder(tmp_path).name == "version_10"


def test_everything_has_what_it_waits_for(tmp_path):
    tasks = planned(tmp_path, *TABLES)
    by_urgency(list(tasks.values()))  # refuses tasks that can never begin
    assert len([name for name in tasks if name in {row.name + "-1" for t in TABLES.values() for row in t}]) == len(
        {row.name for table in TABLES.values() for row in table}
    )
    assert tasks["looking_qa_cro-2"].after == {"looking", "looking_qa-2"}
    assert tasks["easy_vpo-1"].after == {"habit"}
    assert tasks["described_sum-1"].after == {"describing"}
    assert tasks["evaluation_joint"].after == {"looking", *(f"{row.name}-{s}" for row in runs.JOINT for s in SEEDS)}
    assert tasks["evaluation_penalty"].after == {"habit", "easy_cro-1", "easy_cro-2", "easy_vpo-1", "easy_vpo-2"}
    assert tasks["general"].after == {f"{row.name}-{seed}" for row in runs.GENERAL for seed in SEEDS}
    assert tasks["ceilings"].after == set()
    assert set().union(*(needed_by(table, SEEDS) for table in TABLES)) == tasks.keys() - runs.PREPARED.keys()


def test_a_table_needs_its_own_tasks_only(tmp_path):
    names = {f"{row.name}-{seed}" for row in runs.JOINT_FIGURES for seed in SEEDS}
    assert planned(tmp_path, "joint_figures").keys() == {
        *names, "evaluation_figures_before", "evaluation_joint_figures",
    }  # fmt: skip
    assert needed_by("settings", SEEDS) == {f"{row.name}-{seed}" for row in runs.SETTINGS for seed in SEEDS}
    assert "evaluation_reckoning" in needed_by("reckoning_controls", SEEDS)


def test_what_is_finished_is_not_done_again(tmp_path):
    finish(tmp_path, "looking_qa-1")
    finish(tmp_path, "looking_qa-2")
    (tmp_path / "looking_qa-2.cost.json").unlink()
    (tmp_path / "looking/model").mkdir(parents=True)
    (tmp_path / "looking.cost.json").write_text("{}")
    tasks = planned(tmp_path, "joint")
    assert not {"looking", "looking_qa-1"} & tasks.keys()
    assert tasks["looking_qa_cro-1"].after == set()
    assert tasks["looking_qa_cro-2"].after == {"looking_qa-2"}


def test_every_captioner_is_tested_once(tmp_path):
    tested = Counter(name for each in EVALUATIONS for name in (*each.others, *(run.name for run in each.runs(SEEDS))))
    assert set(tested.values()) == {1}
    shown = [row for name in ("against", "penalty", "reckoning_controls", "joint", "joint_figures")
             for row in TABLES[name]]  # fmt: skip
    assert tested.keys() == {*EMBEDDED, "habit", "looking", *(f"{row.name}-{seed}" for row in shown for seed in SEEDS)}


def test_a_test_takes_the_newest_version_of_its_runs(tmp_path):
    folders = [finish(tmp_path, f"{row.name}-{seed}") for row in runs.PENALTY for seed in SEEDS]
    each = next(each for each in EVALUATIONS if each.name == "evaluation_penalty")
    each.write_config(SEEDS, tmp_path)
    command = each.command(tmp_path)
    settings = yaml.safe_load(open(command[command.index("--config") + 1]))  # noqa: SIM115
    paths = [captioner["path"] for captioner in settings["captioners"]]
    assert paths == [str(tmp_path / "habit/adapter"), *map(str, folders)]
    assert (settings["name"], settings["modes"]) == ("evaluation_penalty", ["direct", "caption"])
    assert {captioner["max_new_tokens"] for captioner in settings["captioners"]} == {16}


def test_a_busy_machine_only_adds_to_what_a_task_costs():
    published = {
        "costs": {"cro-1": {"cpu_seconds": 70.0}, "cro-3": {"cpu_seconds": 65.5}, "general": {"cpu_seconds": 9.0}},
        "runs": {"cro-2": {"seconds": 50}, "rank_4-1": {"seconds": 300}, "rank_4-2": {"seconds": 80}},
    }
    assert expected("cro-7", published) == 65.5
    assert expected("rank_4-1", published) == 80
    assert expected("general", published) == 9
    assert expected("qa-1", published) == 60


def test_finished_tasks_become_a_table(tmp_path):
    names = [f"{row.name}-{seed}" for row in runs.DESCRIBED for seed in SEEDS]
    for name in names:
        finish(tmp_path, name)
    keys = ("direct", "reckoning-weak", "reckoning-strong", "asked_counts_stated", "true_sentences")
    found = {name: dict.fromkeys(keys, place / 10) for place, name in enumerate([runs.DESCRIBING, *names])}
    (tmp_path / "described.json").write_text(json.dumps(found))
    (tmp_path / "described.cost.json").write_text('{"seconds": 9.0, "cpu_seconds": 8.0}')
    results = collect(["reckoning_described"], SEEDS, tmp_path)
    assert results["runs"][names[0]]["curve"] == [(0, 0.25), (80, 0.75)]
    assert results["runs"][names[0]]["seconds"] == 61
    assert results["costs"].keys() == {*names, "described"}
    assert {results[part] == {} for part in ("evaluation", "sheet", *MEASURED) if part != "described"} == {True}
    block = tables(results)["reckoning_described"].splitlines()
    assert block[2:] == [
        "| before | 0.0 | 0.0 | 0.0 | 0.0 | 0.0 |",
        f"| {runs.DESCRIBED[0].title} |" + " 15.0 (10.0–20.0) |" * 5,
        f"| {runs.DESCRIBED[1].title} |" + " 35.0 (30.0–40.0) |" * 5,
    ]
