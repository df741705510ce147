"""The benchmark of a step: what it compares, what it measures, what it writes."""

from __future__ import annotations

import json
import logging
import runpy
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import bench_scaling
import bench_step
import pytest
import torch
from step_bench import measure
from step_bench.measure import Recorder, summarise
from step_bench.workloads import WORKLOADS, build_family, find_workload, fixed_captions, make_rows
from transformers import AutoConfig

from racro_pl.losses import advantages

RESULTS = Path(__file__).parents[3] / "docs" / "results"
TINY = "tiny:questions=1:tokens=3:micro_batch=2:layers=1:image_side=56"

WRITE_GRADIENTS = """
import sys, numpy
from safetensors.numpy import save_file
scale, names = float(sys.argv[1]), sys.argv[2].split(",")
gradients = {n: (scale * numpy.array([1.0, -2.0])).astype("float32") for n in names}
save_file({"loss": numpy.array(0.5, "float32")} | gradients, sys.argv[5])
"""
"""Stands for a side: its arguments are (scale, names, workload, model, out, --check, adapter, ...)."""


def test_a_turn_keeps_the_module_path_and_a_failed_one_tells_its_last_lines(monkeypatch, tmp_path):
    (tmp_path / "only_here.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    body = "import sys, only_here; [print(f'line {i}', file=sys.stderr) for i in range(40)]; raise SystemExit(3)"
    with pytest.raises(SystemExit, match=r"failed:\nline 10\n(.*\n)+line 39$"):
        bench_step.run([sys.executable, "-c", body], threads=1)


def side(scale: float, names: str = "a,b") -> list[str]:
    return [sys.executable, "-c", WRITE_GRADIENTS, str(scale), names]


@pytest.mark.parametrize(
    ("peer", "problem"),
    [
        (side(1.0 + 5e-5), None),
        (side(1.001), "do not compute the same gradients"),
        (side(1.0, "a,c"), "train other tensors, e.g. .'b', 'c'."),
    ],
)
def test_sides_that_compute_other_gradients_are_not_timed(tmp_path, peer, problem):
    work = ["tiny", "model"]
    if problem is None:
        found = bench_step.agreement({"racro_pl": side(1.0), "trl": peer}, work, tmp_path, threads=1)
        assert found["loss_racro_pl"] == found["loss_trl"] == 0.5
        assert found["largest_relative_gradient_difference"] < bench_step.AGREEMENT
    else:
        with pytest.raises(SystemExit, match=problem):
            bench_step.agreement({"racro_pl": side(1.0), "trl": peer}, work, tmp_path, threads=1)


def test_a_side_that_fails_shows_its_last_words(tmp_path):
    with pytest.raises(SystemExit, match="ValueError: no such thing"):
        bench_step.run([sys.executable, "-c", "raise ValueError('no such thing')"], threads=1)


def test_workloads_are_named_and_changed_by_number():
    changed = find_workload("long-prompt:group=4:image_side=448")
    assert (changed.group, changed.image_side, changed.hidden) == (4, 448, WORKLOADS["long-prompt"].hidden)
    assert find_workload("tiny") == WORKLOADS["tiny"]
    for text, message in (("huge", "no workload 'huge'"), ("tiny:size=3", "size"), ("tiny:group=many", "many")):
        with pytest.raises(ValueError, match=message):
            find_workload(text)


def test_a_family_is_built_as_deep_and_wide_as_the_workload_says(tmp_path):
    build_family(find_workload("family:layers=5:inner=80"), "gemma3", tmp_path)
    text = AutoConfig.from_pretrained(tmp_path).text_config
    assert (text.num_hidden_layers, text.intermediate_size) == (5, 80)
    assert text.layer_types == ["sliding_attention", "full_attention"] * 2 + ["sliding_attention"]


@pytest.fixture
def sides_run_here(monkeypatch):
    """In this process: each would import everything again. How a process of theirs ends is tested above."""
    # What the scripts change for their process.
    monkeypatch.setattr(advantages, "STD_EPSILON", advantages.STD_EPSILON)
    lightning = logging.getLogger("lightning.pytorch")
    level, threads = lightning.level, torch.get_num_threads()

    def run_here(command: list[str], threads: int) -> None:
        with monkeypatch.context() as changed:
            changed.setattr(sys, "argv", [*command[1:], "--threads", str(threads)])
            runpy.run_path(command[1], run_name="__main__")

    for script in (bench_step, bench_scaling):
        monkeypatch.setattr(script, "run", run_here)
    yield
    lightning.setLevel(level)
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.usefixtures("sides_run_here")
def test_a_step_on_both_paths_from_end_to_end(tmp_path, monkeypatch):
    out = tmp_path / "out.json"
    monkeypatch.setattr(
        sys, "argv",
        ["bench_step.py", "--workload", "family:group=2:tokens=3:layers=2", "--family", "gemma3", "--rounds", "1",
         "--steps", "1", "--warmup", "0", "--json", str(out)],
    )  # fmt: skip
    bench_step.main()
    found = json.loads(out.read_text())
    assert found["family"] == "gemma3"
    packed, plain = (found[side]["counts"]["tokens_with_gradient"] for side in ("racro_pl", "plain"))
    assert plain == 2 * (packed - 2)  # two captions of which two tokens are forwarded, and their prompt
    assert found["agreement"]["largest_relative_gradient_difference"] < bench_step.AGREEMENT


def test_rows_and_captions_are_the_same_for_both_sides_and_come_again_after_an_epoch():
    workload = find_workload("tiny:epoch=3:image_side=56")
    rows = make_rows(workload, 7)
    assert rows == make_rows(workload, 7)
    assert rows[:3] == rows[3:6] != rows[1:4]
    captions, rewards = fixed_captions(workload)
    assert (captions, rewards) == fixed_captions(workload)
    assert {len(caption) for caption in captions} == {workload.tokens}
    assert len(captions) == len(rewards) == workload.questions * workload.group


def test_phases_count_what_is_theirs_alone(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=lambda: clock[0], process_time=time.process_time))
    recorder = Recorder()
    for _ in range(2):
        recorder.start()
        with recorder.phase("outer"):
            clock[0] += 1.0
            with recorder.phase("inner"):
                clock[0] += 4.0
            clock[0] += 2.0
        clock[0] += 8.0
        recorder.finish()
    for step in recorder.steps:
        assert step["phases"] == {"outer": 3.0, "inner": 4.0}
        assert step["seconds"] == 15.0


def test_memory_belongs_to_the_phase_that_took_it():
    recorder = Recorder()
    with recorder.phase("outer"):
        with recorder.phase("large"):
            block = torch.ones(50 * 2**20)  # 200 MiB
            del block
        with recorder.phase("small"):
            torch.ones(2**10)
    recorder.finish()
    peaks = recorder.steps[0]["phase_peaks_gib"]
    assert peaks["large"] > peaks["small"] + 0.15
    assert peaks["large"] > peaks["outer"] + 0.15
    assert recorder.steps[0]["peak_gib"] == peaks["large"]


def test_steps_are_summed_up_by_medians():
    steps = [
        {
            "seconds": seconds, "cpu_seconds": seconds / 2, "peak_gib": seconds, "phases": {"sample": seconds},
            "phase_peaks_gib": {"sample": seconds}, "counts": {"tokens": 7},
        }
        for seconds in (1.0, 2.0, 9.0)
    ]  # fmt: skip
    found = summarise(steps)
    assert (found["seconds"], found["cpu_seconds"], found["phases"]) == (2.0, 1.0, {"sample": 2.0})
    assert (found["peak_gib"], found["phase_peaks_gib"]) == (9.0, {"sample": 9.0})
    assert found["quartiles"] == [1.0, 9.0]
    assert found["counts"] == {"tokens": 7}


@pytest.mark.parametrize("name", ["tiny", "long_prompt", "slow_reward"])
def test_published_results_say_what_they_are(name):
    result = json.loads((RESULTS / f"step_{name}.json").read_text())
    assert result["workload"] in WORKLOADS
    assert result["agreement"]["largest_relative_gradient_difference"] < bench_step.AGREEMENT
    for side in ("racro_pl", "trl"):
        assert {"steps", "seconds", "quartiles", "cpu_seconds", "peak_gib", "phases", "counts"} <= result[side].keys()
        assert {"cpu", "cores", "load"} <= result[side]["machine"].keys()
    assert result["times_faster"] == pytest.approx(result["trl"]["seconds"] / result["racro_pl"]["seconds"], abs=0.01)


@pytest.mark.slow  # a point whose sides are stubs is tested below
@pytest.mark.usefixtures("sides_run_here")
def test_one_point_of_the_scaling_from_end_to_end(tmp_path, monkeypatch):
    out, plot = tmp_path / "scaling.json", tmp_path / "images" / "scaling.png"
    monkeypatch.setattr(bench_scaling, "FIXED_SIDE", 56)
    monkeypatch.setattr(
        sys, "argv",
        ["bench_scaling.py", "--base", TINY, "--point", "2,56", "--steps", "1", "--warmup", "0", "--json", str(out),
         "--plot", str(plot)],
    )  # fmt: skip
    bench_scaling.main()
    (point,) = json.loads(out.read_text())["points"]
    assert point["group"] == 2
    # 4 image tokens and the text; per caption, two of three tokens are forwarded.
    assert point["racro_pl"]["counts"]["tokens_with_gradient"] == point["prompt_tokens"] + 2 * 2
    assert point["racro_pl"]["counts"]["image_patches"] == 16
    assert point["racro_pl"]["cpu_seconds"] > 0
    assert plot.read_bytes()[:4] == b"\x89PNG"


def test_a_peer_that_fails_at_a_point_costs_that_point_alone(tmp_path, monkeypatch):
    turn = {
        "steps": [{"seconds": 1.0, "cpu_seconds": 1.0, "peak_gib": 1.0, "phases": {}, "phase_peaks_gib": {},
                   "counts": {"tokens_with_gradient": 100}}],
        "versions": {}, "machine": {},
    }  # fmt: skip

    def run(command: list[str], threads: int) -> None:
        if command[0] == "trl":
            raise SystemExit("trl failed: out of memory")
        Path(command[3]).write_text(json.dumps(turn))

    monkeypatch.setattr(bench_scaling, "run", run)
    monkeypatch.setattr(bench_scaling, "build_model", lambda *_: None)
    found = bench_scaling.measure("tiny:questions=1:group=2:tokens=6", {"racro_pl": ["ours"], "trl": ["trl"]}, [], 1)
    assert found["trl"] == {"failed": "trl failed: out of memory"}
    assert found["prompt_tokens"] == 90
    bench_scaling.draw([{"group": 2, "image_side": bench_scaling.FIXED_SIDE} | found], tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_scaling_varies_one_number_at_a_time():
    chosen = bench_scaling.points()
    assert len(chosen) == len(set(chosen)) == 8
    assert all(group == bench_scaling.FIXED_GROUP or side == bench_scaling.FIXED_SIDE for group, side in chosen)
