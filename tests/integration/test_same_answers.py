"""`serve pipeline` answers as `racro-pl test` does: same captions, same tentative answers, same reasoner's words."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import torch

from racro_pl.cli import run
from racro_pl.evaluation.settings import CaptionerSettings, SamplingSettings, open_reasoner
from racro_pl.evaluation.writers import open_writer
from racro_pl.figure_world.world import figure_questions
from racro_pl.pipeline import reads_tentative
from tests.helpers.service import asking, running_service

LIMIT = 40
TOKENS = 48
TIED = "test-0-0"
"""Its tentative answer hangs on 1e-5 between two logits, which may fall either way in batches of other sizes."""


def test_the_server_answers_the_figure_world_as_test_does(tmp_path):
    captioner = f"[{{name: it, path: 'embedded:figure-captioner', max_new_tokens: {TOKENS}}}]"
    assert run([
        "test", "--benchmarks", "figures", "--captioners", captioner, "--reasoners", "embedded:figure-reasoner",
        "--modes", "caption,caption+tentative", "--limit", str(LIMIT), "--runs", str(tmp_path),
    ]) == 0  # fmt: skip
    texts = {}
    for kind in ("captions", "answers"):
        for line in (tmp_path / f"test/version_0/{kind}.jsonl").read_text().splitlines():
            record = json.loads(line)
            name = f"text: {record['task']}" if kind == "captions" else f"answer: {record['mode']}"
            texts[record["id"], name] = record["text"]

    settings = CaptionerSettings("embedded:figure-captioner", "it", max_new_tokens=TOKENS)
    writer = open_writer(settings, torch.device("cpu"))
    reasoner = open_reasoner("embedded:figure-reasoner", SamplingSettings(max_tokens=TOKENS))
    questions = [question for question in figure_questions("test", LIMIT) if question.id != TIED]
    with (
        running_service(writer, reasoner, mode="caption+tentative") as service,
        ThreadPoolExecutor(8) as clients,
    ):
        replies = list(clients.map(lambda each: service.chat(asking(each.text, each.images[0].data)).json(), questions))
    modes = set()
    for question, reply in zip(questions, replies, strict=True):
        (seen,) = reply["racro"]["captions"]
        assert seen["caption"] == texts[question.id, "text: caption"]
        tentative = seen["tentative_answer"]
        assert tentative == texts[question.id, "text: tentative"]
        # A tentative answer without a box is not shown to the reasoner: it then answers as in mode `caption`.
        mode = "caption+tentative" if reads_tentative(tentative) else "caption"
        modes.add(mode)
        assert reply["choices"][0]["message"]["content"] == texts[question.id, f"answer: {mode}"]
    assert "caption+tentative" in modes
