"""The GPU benchmark without a GPU: the whole path on tiny shapes, and what becomes of cases that go wrong."""

from __future__ import annotations

import json
import sys

import bench_gpu
import pytest
import torch
from rich.console import Console
from step_bench import gpu_case, gpu_parts
from step_bench.processes import bench_environment
from step_bench.quantised import build_quantised
from step_bench.workloads import find_workload, save_processor

from racro_pl.policy.attention import GroupAttention, Rows
from racro_pl.policy.config import PolicySettings
from racro_pl.policy.loading import load_captioner

CPU = torch.device("cpu")
OK = {"status": "ok", "seconds": 4.0, "peak_gib": 9.5, "phases": {"sample": 1.25}, "phase_peaks_gib": {"sample": 9.5}}


def shown(table: object) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


@pytest.mark.slow  # test_gpu_minutes rehearses a step of a model by the same parts
def test_a_dry_run_takes_the_whole_path(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out.json"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(sys, "argv", ["bench_gpu.py", "--dry-run", "--steps", "1", "--json", str(out)])
    bench_gpu.main()
    result = json.loads(out.read_text())
    assert result["dry_run"] is True
    step, parts = result["rows"]
    assert (step["side"], step["model"], step["status"]) == ("racro_pl", "tiny", "ok")
    assert step["phases"].keys() == step["phase_peaks_gib"].keys() == bench_gpu.PHASES.keys()
    assert all(seconds > 0 for seconds in step["phases"].values())
    # Sampling and the reference read the prompt once each, checkpointing forwards everything twice: both sums are
    # 2 * (prompt + 4 captions of 5 tokens that predict one).
    forwarded = step["counts"]["tokens_with_gradient"]
    assert forwarded == step["counts"]["tokens_without_gradient"]
    assert forwarded // 2 - 4 * 5 - 4 == pytest.approx(gpu_parts.TEXT_TOKENS, abs=2)  # 4 tokens of the image
    assert step["counts"]["image_patches"] == 16
    assert {"torch", "transformers", "peft", "bitsandbytes"} <= step["versions"].keys()
    assert {"cpu", "cores"} <= step["machine"].keys()
    assert len(parts["phases"]) == 6
    printed = capsys.readouterr().out
    assert "figures mean nothing" in printed
    assert "attention, flex" in printed


def test_without_a_gpu_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bench_gpu.py", "--json", str(tmp_path / "out.json")])
    monkeypatch.setattr(bench_gpu, "has_gpu", lambda: False)
    with pytest.raises(SystemExit, match="no CUDA device") as stopped:
        bench_gpu.main()
    assert stopped.value.code != 0
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    ("body", "seconds", "status", "detail"),
    [
        ("raise MemoryError('host memory')", 60, "failed", "exit 1: MemoryError: host memory"),
        ("import os; os.kill(os.getpid(), 9)", 60, "failed", "exit -9: no message"),
        ("pass", 60, "failed", "exit 0"),
        ("pass", 5, "not run", "out of time"),
    ],
)
def test_a_case_that_goes_wrong_is_one_row(body, seconds, status, detail):
    row = bench_gpu.run_case([sys.executable, "-c", body], [], seconds)
    assert row["status"] == status
    assert detail in row["detail"]


def test_of_a_case_that_failed_the_end_of_its_output_is_kept():
    body = "import sys; [print(f'line {i}', file=sys.stderr) for i in range(40)]; raise SystemExit(3)"
    row = bench_gpu.run_case([sys.executable, "-c", body], [], 60)
    assert row["stderr"] == [f"line {i}" for i in range(10, 40)]
    assert row["detail"] == "exit 3: line 39"


def test_a_case_keeps_the_module_path_that_it_was_given(monkeypatch, tmp_path):
    """A peer may be installed there and nowhere else."""
    (tmp_path / "only_here.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    body = "import only_here, racro_pl; raise SystemExit('both found: ' + racro_pl.__file__)"
    row = bench_gpu.run_case([sys.executable, "-c", body], [], 60)
    assert row["detail"].startswith(f"exit 1: both found: {bench_environment()['PYTHONPATH'].split(':')[0]}")


def test_a_case_is_stopped_when_its_time_is_up(monkeypatch):
    monkeypatch.setattr(bench_gpu, "LEAST_SECONDS", 0)
    row = bench_gpu.run_case([sys.executable, "-c", "import time; time.sleep(60)"], [], 0.5)
    assert row["status"] == "stopped"


def test_running_out_of_memory_is_a_record(tmp_path, monkeypatch):
    def steps(_: gpu_case.Case) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nand more")

    out = tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", ["case", "3b:image_side=512", str(tmp_path), str(out), "--device", "cpu"])
    gpu_case.run_case("", steps)
    record = json.loads(out.read_text())
    assert (record["status"], record["detail"]) == (
        "out of memory",
        "CUDA out of memory. Tried to allocate 2 GiB",
    )
    assert "torch" in record["versions"]


def test_small_cases_come_first_and_sides_take_turns():
    order = [row[:3] for row in bench_gpu.schedule(False, ["racro_pl", "trl"])]
    cases = [(model, image) for model in ("3b", "7b") for image in (512, 1024)]
    assert order == [*((side, *case) for case in cases for side in ("racro_pl", "trl")), ("parts", "7b", 1024)]
    for *_, workload in bench_gpu.schedule(False, ["racro_pl"]):
        shape = find_workload(workload)
        assert (shape.questions, shape.group, shape.tokens) == (1, 8, 300)


def test_the_table_shows_figures_and_reasons():
    rows = [
        {"side": "racro_pl", "model": "3b", "image_side": 512} | OK,
        {"side": "trl", "model": "7b", "image_side": 1024, "status": "out of memory", "detail": "2 GiB"},
    ]
    text = shown(bench_gpu.steps_table(rows, dry_run=False))
    assert "1.25 (9.5)" in text
    assert "4.00" in text
    assert "out of memory: 2 GiB" in text
    text = shown(bench_gpu.parts_table([{"side": "parts", "model": "7b", "image_side": 512} | OK, rows[1]]))
    assert "1250.0 (9.5)" in text
    assert "out of memory" in text


@pytest.mark.parametrize("model", ["3b", "7b"])
def test_random_4_bit_weights_lie_as_loaded_ones_do(tmp_path, model):
    """Same names, shapes and types as the captioner that loading quantises from a folder."""
    from transformers import Qwen2_5_VLForConditionalGeneration

    workload = find_workload(f"{model}:image_side=56:{bench_gpu.TINY}")
    config = save_processor(workload, tmp_path)
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(tmp_path)
    loaded = load_captioner(PolicySettings(path=str(tmp_path), quantization="nf4"), CPU).model.get_base_model()
    built = build_quantised(save_processor(workload, tmp_path), CPU)

    def plain(name: str) -> str:
        return name.replace("base_layer.", "")

    expected = {plain(n): (p.shape, p.dtype) for n, p in loaded.named_parameters() if "lora_" not in n}
    assert {n: (p.shape, p.dtype) for n, p in built.named_parameters()} == expected
    assert (built.lm_head.weight is built.get_input_embeddings().weight) == workload.tied == (model == "3b")
    buffers = {plain(n): b for n, b in loaded.named_buffers()}
    assert buffers.keys() == dict(built.named_buffers()).keys()
    for name, buffer in built.named_buffers():
        assert torch.equal(buffer, buffers[name]), name


def test_the_real_shapes_are_those_of_the_models(tmp_path):
    """Parameters counted on the meta device: 3.75 and 8.29 billion, as published."""
    from transformers import Qwen2_5_VLForConditionalGeneration

    for name, billions in (("3b", 3.75), ("7b", 8.29)):
        with torch.device("meta"):
            model = Qwen2_5_VLForConditionalGeneration(save_processor(find_workload(name), tmp_path))
        assert sum(p.numel() for p in model.parameters()) / 1e9 == pytest.approx(billions, abs=0.005)


@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_flex_attention_computes_what_ours_computes():
    """Ragged prompts and captions, query heads that share keys; on a CPU it has no backward to compare."""
    prompts = Rows(torch.arange(9) < torch.tensor([9, 4, 6])[:, None])
    captions = Rows(torch.arange(5) < torch.tensor([5, 1, 3, 2, 4])[:, None])
    ours = GroupAttention(prompts, captions, torch.tensor([2, 0, 0, 1, 2]))
    states = [torch.randn(1, heads, 19 + 15, 16) for heads in (4, 2, 2)]
    torch.testing.assert_close(gpu_parts.FlexGroups(ours)(0, *states, 0.25), ours(0, *states, 0.25))
