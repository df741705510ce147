"""Every family through the commands, on own data: a step, a resumed second, a merged folder that answers the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from racro_pl.cli import run
from tests.fakes.reasoner_server import FaultServer, by_caption
from tests.helpers.families import BUILDERS, UNDESCRIBED, save_small_family
from tests.unit.policy.families.conftest import skip_unless_supported

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
WRITER = {"max_new_tokens": 8, "dtype": "float32", "quantization": "none", "min_pixels": 3136, "max_pixels": 12544}
"""As which run, merged folder and base write alike: a merged adapter of a 4-bit base is on the base as published."""
SMALL = {
    "data.questions_per_step": 2, "model.rollout.init_args.group_size": 4, "model.rollout.init_args.max_new_tokens": 6,
    "model.policy.gradient_checkpointing": "true", "model.policy.max_pixels": 12544, "trainer.limit_val_batches": 0,
    "model.objective.learning_rate": "1e-2",
}  # fmt: skip

NF4 = {"model.policy.quantization": "nf4"}
EXPERTS = {"model.policy.lora.experts": "true"}
CASES = [
    *(pytest.param(kind, {}, id=kind) for kind in [*BUILDERS, *UNDESCRIBED]),
    # Of all of them, bit for bit: tests/unit/training/test_families.py.
    *(pytest.param(kind, NF4, id=f"{kind}-nf4") for kind in ("internvl", "gemma3", "qwen3_5")),
    *(pytest.param(kind, EXPERTS, id=f"{kind}-experts") for kind in ("qwen3_vl_moe", "qwen3_5_moe")),
    pytest.param("qwen3_vl_moe", NF4 | EXPERTS, id="qwen3_vl_moe-nf4-experts"),
]


@pytest.fixture
def reasoner() -> Iterator[str]:
    with FaultServer(answer=lambda chat: by_caption(str(chat[-1]["content"]))) as server:
        yield server.url


def own_data(folder: Path) -> Path:
    """A file of questions whose pictures have several sizes; one question has two."""
    folder.mkdir()
    rows = []
    for index in range(6):
        Image.new("RGB", (56 + 28 * (index % 3), 56), (40 * index, 90, 200)).save(folder / f"{index}.png")
        images = [f"{index}.png"] if index else ["0.png", "0.png"]
        rows.append({"id": str(index), "question": f"What is in {index}?", "answer": "red", "images": images})
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def racro_pl(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The command in this process: a new one would import everything again, a hundred times."""
    code = run(list(arguments))
    printed = capfd.readouterr()
    assert code == 0, printed.err[-3000:]
    return printed.out


def captions(folder: Path) -> dict[str, dict[str, str]]:
    """By captioner and question."""
    found: dict[str, dict[str, str]] = {}
    for line in (folder / "captions.jsonl").read_text().splitlines():
        record = json.loads(line)
        found.setdefault(record["captioner"], {})[record["id"]] = record["text"]
    return found


@pytest.mark.parametrize(("kind", "policy"), CASES)
def test_a_family_trains_resumes_merges_and_answers(kind, policy, reasoner, tmp_path, monkeypatch, capfd):
    skip_unless_supported(kind)
    monkeypatch.chdir(tmp_path)
    # Two layers with the windows of their builders would not reach from a caption back to the image.
    window = {"sliding_window": 512} if kind in ("llava_next", "mistral3") else {}
    model, data = save_small_family(tmp_path / "model", kind, **window), own_data(tmp_path / "data")
    options = SMALL | policy | {
        "model.policy.path": model, "data.reader.init_args.path": data, "model.reward.reasoner.init_args.url": reasoner
    }  # fmt: skip
    common = ["--config", str(ROOT / "configs/own_data_vllm.yaml")]
    common += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    printed = racro_pl(capfd, "fit", *common, "--trainer.max_steps", "1")
    assert ("the shared-prefix path is exact" in printed) == (kind in BUILDERS), printed
    last = next(tmp_path.glob("runs/*/version_0/checkpoints/last.ckpt"))
    assert "step 2/2" in racro_pl(capfd, "fit", *common, "--trainer.max_steps", "2", "--ckpt_path", str(last))
    folder = sorted(tmp_path.glob("runs/own_data/version_*"))[-1]
    racro_pl(capfd, "export", str(folder), "merged", "--merge", "--dtype", "float32")
    writers = [{"name": name, "path": path, **WRITER}
               for name, path in (("run", str(folder)), ("merged", "merged"), ("base", str(model)))]  # fmt: skip
    racro_pl(
        capfd, "test", "--benchmarks", f"own={data}", "--captioners", json.dumps(writers), "--reasoners", reasoner,
        "--modes", "caption",
    )  # fmt: skip
    wrote = captions(tmp_path / "runs/test/version_0")
    assert wrote["run"] == wrote["merged"]
    assert wrote["run"] != wrote["base"]
    question = [str(tmp_path / "data/1.png"), "What is in 1?", "--reasoner", reasoner, "--json", "--max_tokens", "8"]
    assert json.loads(racro_pl(capfd, "ask", *question, "--captioner", "merged"))["caption"]
