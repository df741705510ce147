"""What is fuzzed: one table of targets, each with good inputs and with the function that takes a stranger's bytes.

A target may refuse an input with one of ``REFUSALS``; any other exception is a crash. The imports are inside: a worker
loads what its own target needs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuzz_parts import seeds

Feed = Callable[[bytes], object]


@dataclass(frozen=True)
class Target:
    """One way into the program."""

    about: str
    seeds: Callable[[], list[bytes]]
    """Inputs that are good, or that once were a fault."""
    feed: Callable[[Path], Feed]
    """From a folder for the input's files, the function that takes it."""


def refusals() -> tuple[type[Exception], ...]:
    """How an input may be refused."""
    from racro_pl.data.readers.base import RowError
    from racro_pl.serving.chat_client import Fault
    from racro_pl.serving.replies import MalformedReply
    from racro_pl.types import RacroError

    return RacroError, RowError, Fault, MalformedReply


# ------------------------------------------------------------------ images


def feed_image(folder: Path) -> Feed:
    from racro_pl.images import image_size, open_image
    from racro_pl.types import ImageRef

    def feed(data: bytes) -> object:
        image_size(ImageRef(data=data))
        return open_image(ImageRef(data=data)).size

    return feed


# ------------------------------------------------------------------ data files


def with_picture(folder: Path) -> Path:
    (folder / "images").mkdir(exist_ok=True)
    for path in (folder / "a.png", folder / "images/a.png"):
        path.write_bytes(seeds.picture())
    return folder


def feed_jsonl(folder: Path) -> Feed:
    from racro_pl.data import JsonlReader

    path = with_picture(folder) / "questions.jsonl"
    return lambda data: (path.write_bytes(data), JsonlReader(str(path)).read("train"))


def feed_benchmark(name: str) -> Callable[[Path], Feed]:
    """MathVista's reader, in the layout that the file's name tells."""

    def make(folder: Path) -> Feed:
        from racro_pl.data.benchmarks import find_benchmark

        path = with_picture(folder) / name
        return lambda data: (path.write_bytes(data), find_benchmark("mathvista").read(str(path)))

    return make


def feed_virl(folder: Path) -> Feed:
    from racro_pl.data import ViRL39KReader

    path = with_picture(folder) / "39Krelease.parquet"
    return lambda data: (path.write_bytes(data), ViRL39KReader(str(folder)).read("train"))


def feed_predictions(folder: Path) -> Feed:
    from racro_pl.data.benchmarks import find_benchmark
    from racro_pl.evaluation.predictions import read_predictions, read_rows

    path = folder / "predictions.jsonl"

    def feed(data: bytes) -> object:
        path.write_bytes(data)
        rows = read_rows(path)
        return [read_predictions(path, rows, "response", each) for each in (None, find_benchmark("mathvista"))]

    return feed


# ------------------------------------------------------------------ adapters


def feed_adapter(file: str) -> Callable[[Path], Feed]:
    """A start adapter one of whose two files is the input."""

    def make(folder: Path) -> Feed:
        from racro_pl.policy.adapters import find_adapter, start_from
        from racro_pl.policy.config import LoraSettings

        (folder / "adapter_config.json").write_bytes(seeds.adapter_config_seeds()[0])
        (folder / "adapter_model.safetensors").write_bytes(seeds.adapter_weight_seeds()[0])
        return lambda data: (
            (folder / file).write_bytes(data),
            start_from(seeds.adapted_model(), find_adapter(str(folder)), LoraSettings(rank=4, alpha=8)),
        )

    return make


# ------------------------------------------------------------------ servers


def feed_chat(folder: Path) -> Feed:
    """A server's body, as an answer and as an error, through the client that training uses."""
    import httpx

    from racro_pl.reward.http_session import require_model
    from racro_pl.serving.chat_client import ChatClient, Fault
    from racro_pl.serving.replies import read_completion, read_usage

    served: dict[str, Any] = {}

    async def chunks() -> AsyncIterator[bytes]:
        yield served["body"]

    client = ChatClient("http://127.0.0.1:9/v1", "secret-key", attempts=1, attempt_s=5.0, backoff_s=0.0)
    transport = httpx.MockTransport(lambda _: httpx.Response(served["status"], content=chunks()))
    client._new_client = lambda: httpx.AsyncClient(**client._settings, transport=transport)  # type: ignore[method-assign]
    loop = asyncio.new_event_loop()

    def ask(status: int, body: bytes) -> Any:
        served.update(status=status, body=body)
        return loop.run_until_complete(client.call("POST", "chat/completions", {}, deadline=float("inf")))

    def feed(data: bytes) -> object:
        with contextlib.suppress(Fault):
            ask(500, data)
        answer = ask(200, data)
        completion, usage = read_completion(answer), read_usage(answer)
        require_model(answer, "m")
        return completion, usage

    return feed


def feed_rollout(folder: Path) -> Feed:
    import torch

    from racro_pl.rollout.vllm.answer import Asked, read_captions
    from racro_pl.types import Prompt

    prompt = Prompt(torch.tensor([1, 2, 3]), torch.zeros(3, dtype=torch.long))
    asked = Asked("m", captions=2, max_new_tokens=16, vocabulary=64, eos_ids=frozenset({2}), banned=frozenset({5}))

    def feed(data: bytes) -> object:
        try:
            body = json.loads(data)
        except (ValueError, RecursionError):
            return None  # what is no JSON, the client refuses: target "chat"
        return read_captions(body, prompt, asked, pad_id=0)

    return feed


# ------------------------------------------------------------------ texts


def question_of(gold: str, choices: tuple[str, ...] = ()) -> Any:
    from racro_pl.types import ImageRef, Question

    metadata = {"question_type": "free_form", "answer_type": "float", "precision": 2.0, "unit": "", "choices": choices}
    kind = "choice" if choices else "math"
    return Question("1", (ImageRef(data=b"x"),), "what ?", "A" if choices else gold, kind, choices, metadata=metadata)


def split_pair(data: bytes) -> tuple[str, str]:
    """A response, and after its last line break a gold answer. Half an emoji is a lone surrogate, as in JSON."""
    response, _, gold = data.decode("utf-8", "surrogateescape").rpartition("\n")
    return response, gold


def feed_equality(folder: Path) -> Feed:
    """Extraction and what is decided without a symbolic library."""
    from racro_pl.text.answers import extract_answer, unbox
    from racro_pl.text.comparison import quick_equal
    from racro_pl.text.verdict import is_right

    def feed(data: bytes) -> object:
        response, gold = split_pair(data)
        answer = extract_answer(response) or response
        return quick_equal(answer, unbox(gold)), is_right(answer, question_of(gold), quick_equal)

    return feed


def feed_grader(folder: Path) -> Feed:
    """The grader of training, with the symbolic library in its own process."""
    from racro_pl.reward.grader import Grader
    from racro_pl.text.answers import extract_answer

    grader = Grader(limit_s=1.0)

    def feed(data: bytes) -> object:
        response, gold = split_pair(data)
        return grader.grade(extract_answer(response) or response, question_of(gold))

    return feed


def feed_rules(folder: Path) -> Feed:
    """Every rule of every benchmark that needs nothing but a question."""
    from racro_pl.evaluation.headlines import HEADLINES
    from racro_pl.evaluation.outcomes import Tools
    from racro_pl.reward.grader import Grader

    tools = Tools(Grader(limit_s=1.0))
    rules = [HEADLINES[name].rules for name in ("own", "mathvision", "mathvista", "mathverse")]
    known = [rule for each in rules for rule in each.values()]

    def feed(data: bytes) -> object:
        response, gold = split_pair(data)
        questions = (question_of(gold), question_of(gold, ("x", gold)))
        return [rule(question, response, tools) for rule in known for question in questions]

    return feed


TARGETS: dict[str, Target] = {
    "images": Target("image files", seeds.image_seeds, feed_image),
    "jsonl": Target("own questions", seeds.question_seeds, feed_jsonl),
    "virl39k": Target("training parquet", seeds.virl_seeds, feed_virl),
    "tsv": Target("benchmark TSV", seeds.tsv_seeds, feed_benchmark("MathVista_MINI.tsv")),
    "json-rows": Target("benchmark jsonl", seeds.json_row_seeds, feed_benchmark("testmini.jsonl")),
    "json-file": Target("benchmark json", seeds.json_file_seeds, feed_benchmark("testmini.json")),
    "shards": Target("benchmark parquet", seeds.shard_seeds, feed_benchmark("testmini-00000-of-00001.parquet")),
    "predictions": Target("prediction files", seeds.prediction_seeds, feed_predictions),
    "adapter-config": Target("adapter_config.json", seeds.adapter_config_seeds, feed_adapter("adapter_config.json")),
    "adapter-weights": Target("adapter weights", seeds.adapter_weight_seeds, feed_adapter("adapter_model.safetensors")),
    "chat": Target("reasoner replies", seeds.chat_seeds, feed_chat),
    "rollout": Target("rollout replies", seeds.rollout_seeds, feed_rollout),
    "equality": Target("answers", seeds.answer_seeds, feed_equality),
    "grader": Target("graded answers", seeds.answer_seeds, feed_grader),
    "rules": Target("scoring rules", seeds.answer_seeds, feed_rules),
}
"""Every target by the name that ``--targets`` takes."""
