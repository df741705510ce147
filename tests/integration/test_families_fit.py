"""Families beyond Qwen2.5-VL and Qwen3-VL through the commands: two steps, a resumed third, a merged folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from racro_pl.cli import run
from racro_pl.policy.config import PolicySettings
from racro_pl.policy.loading import load_for_inference
from tests.helpers.families import save_small_family
from tests.unit.policy.conftest import QUESTIONS

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SMALL = {
    "data.questions_per_step": 2, "data.reader.init_args.train": 40, "data.reader.init_args.validation": 4,
    "data.reader.init_args.test": 4, "model.rollout.init_args.group_size": 4, "trainer.callbacks": "null",
    "trainer.val_check_interval": 2, "model.policy.lora.rank": 4, "model.policy.lora.alpha": 8,
    "model.rollout.init_args.questions_per_batch": 2, "model.policy.gradient_checkpointing": "true",
}  # fmt: skip


def racro_pl(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The command in this process: a new one would import everything again, nine times."""
    code = run(list(arguments))
    printed = capfd.readouterr()
    assert code == 0, printed.err[-3000:]
    return printed.out


@pytest.mark.parametrize(("kind", "quantization"), [("internvl", "none"), ("gemma3", "none"), ("qwen3_5", "nf4")])
def test_a_family_trains_resumes_and_merges(kind, quantization, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    model = save_small_family(tmp_path / "model", kind)
    options = SMALL | {"model.policy.path": model, "model.policy.quantization": quantization}
    common = ["--config", str(ROOT / "configs/quickstart.yaml")]
    common += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    racro_pl(capfd, "fit", *common, "--trainer.max_steps", "2")
    last = next(tmp_path.glob("runs/*/version_*/checkpoints/last.ckpt"))
    resumed = racro_pl(capfd, "fit", *common, "--trainer.max_steps", "3", "--ckpt_path", str(last))
    assert "step 3/3" in resumed
    folder = sorted(tmp_path.glob("runs/*/version_*"))[-1]
    racro_pl(capfd, "export", str(folder), "merged", "--merge", "--dtype", "float32")
    pixels = {"min_pixels": 3136, "max_pixels": 3136, "dtype": "float32"}
    apart = load_for_inference(
        PolicySettings(path=str(model), adapter=str(folder / "adapter"), **pixels), torch.device("cpu")
    )
    merged = load_for_inference(PolicySettings(path=str(tmp_path / "merged"), **pixels), torch.device("cpu"))
    tokens = torch.randint(60, 200, (1, 6), generator=torch.Generator().manual_seed(0))
    inputs = (torch.tensor([0]), tokens, torch.ones(1, 6, dtype=torch.bool))
    one, other = (
        each.frozen_logprobs([each.encode(QUESTIONS[0])], *inputs, reference=False) for each in (apart, merged)
    )
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
