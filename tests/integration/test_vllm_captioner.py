"""The embedded captioner behind a real vLLM server writes what it writes in process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from racro_pl.evaluation.settings import CaptionerSettings
from racro_pl.evaluation.writers import open_writer
from racro_pl.figure_world.models import EMBEDDED
from racro_pl.figure_world.world import figure_questions
from racro_pl.serving.vllm_process import ServerSettings, VllmServer

pytestmark = pytest.mark.vllm


def test_served_and_in_process_captions_are_the_same(vllm_python: Path, tmp_path):
    questions = figure_questions("test", 24)
    work = [(question, task) for question in questions for task in ("caption", "tentative")]
    limits = {"max_new_tokens": 24, "batch_size": 8}
    start = ServerSettings(
        str(vllm_python),
        max_model_len=512,
        extra_args=["--enforce-eager", "--dtype", "float32"],
        start_timeout_s=280,
    )
    log = tmp_path / "vllm.log"
    server = VllmServer(EMBEDDED["figure-captioner"], start, served_model_name="captioner", log_path=log)
    with server:
        served = open_writer(CaptionerSettings(server.url, "served", **limits), torch.device("cpu"))
        served.check()
        texts = [item.text for item in served.write(work)]
        served.close()
    local = open_writer(CaptionerSettings("embedded:figure-captioner", "local", **limits), torch.device("cpu"))
    expected = [item.text for item in local.write(work)]
    # Another engine rounds differently: a near-tie may turn, not more.
    same = sum(text == other for text, other in zip(texts, expected, strict=True))
    assert same >= len(work) - 2
