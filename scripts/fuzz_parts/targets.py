"""What is fuzzed: one table of targets, each with good inputs and with the function that takes a stranger's bytes.

A target may refuse an input with one of ``REFUSALS``; any other exception is a crash. The imports are inside: a worker
loads what its own target needs.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import io
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    from racro_pl.types import RacroError

    return RacroError, RowError, Fault


def lines(*rows: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


# ------------------------------------------------------------------ images


@functools.cache
def picture(kind: str = "PNG", mode: str = "RGB") -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new(mode, (32, 28)).save(buffer, kind)
    return buffer.getvalue()


def image_seeds() -> list[bytes]:
    modes = {"PNG": ("RGB", "RGBA", "L", "P", "I;16", "1"), "JPEG": ("RGB", "L", "CMYK"), "TIFF": ("RGB", "I;16", "F")}
    kinds = [
        (kind, mode) for kind in ("PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP") for mode in modes.get(kind, ("RGB",))
    ]
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    return [picture(kind, mode) for kind, mode in kinds] + [
        eps,
        b"8BPS\x00\x01" + bytes(30),
        b"\x00\x00\x01\x00\x01\x00",
    ]


def feed_image(folder: Path) -> Feed:
    from racro_pl.images import image_size, open_image
    from racro_pl.types import ImageRef

    def feed(data: bytes) -> object:
        image_size(ImageRef(data=data))
        return open_image(ImageRef(data=data)).size

    return feed


# ------------------------------------------------------------------ data files


def question_seeds() -> list[bytes]:
    row = {"id": "1", "question": "what <image> ?", "image": "a.png", "answer": "red", "category": "color"}
    choice = {"id": 2, "question": "which ?", "images": ["a.png", "a.png"], "options": ["x", "y"], "answer": "A"}
    math = {"index": "3", "question": "how many ?", "image": "a.png", "choices": "['1', '2']", "answer": "\\boxed{2}"}
    return [lines(row), lines(choice), lines(math), lines(row, choice, math)]


def with_picture(folder: Path) -> Path:
    (folder / "images").mkdir(exist_ok=True)
    for path in (folder / "a.png", folder / "images/a.png"):
        path.write_bytes(picture())
    return folder


def feed_jsonl(folder: Path) -> Feed:
    from racro_pl.data.readers import JsonlReader

    path = with_picture(folder) / "questions.jsonl"
    return lambda data: (path.write_bytes(data), JsonlReader(str(path)).read("train"))


def vista_row(**more: Any) -> dict[str, Any]:
    return {
        "index": 1, "question": "which ?", "question_type": "multi_choice", "answer_type": "text", "answer": "x",
        "choices": "['x', 'y']", "metadata": "{'task': 'a'}", "pid": "1", "unit": "", "precision": "1.0", **more,
    }  # fmt: skip


def tsv_seeds() -> list[bytes]:
    image = base64.b64encode(picture()).decode()

    def tsv(*rows: dict[str, Any]) -> bytes:
        return "\n".join("\t".join(map(str, each)) for each in (rows[0], *(row.values() for row in rows))).encode()

    first = vista_row(image=image)
    return [tsv(first, vista_row(index=2, image="1")), tsv(vista_row(image=f"['{image}', '{image}']")),
            tsv(vista_row(image_path="a.png"))]  # fmt: skip


def feed_benchmark(name: str) -> Callable[[Path], Feed]:
    """MathVista's reader, in the layout that the file's name tells."""

    def make(folder: Path) -> Feed:
        from racro_pl.evaluation.benchmarks import find_benchmark

        path = with_picture(folder) / name
        return lambda data: (path.write_bytes(data), find_benchmark("mathvista").read(str(path)))

    return make


def json_row_seeds() -> list[bytes]:
    row = vista_row(image="a.png", choices=["x", "y"], metadata={"task": "a"})
    return [lines(row), lines(row, row), lines(vista_row(image="a.png"))]


def json_file_seeds() -> list[bytes]:
    row = vista_row(image="a.png", choices=["x", "y"], metadata={"task": "a"})
    return [json.dumps([row]).encode(), json.dumps({"1": row, "2": row}).encode()]


def table(rows: list[dict[str, Any]], **options: Any) -> bytes:
    import pyarrow
    from pyarrow import parquet

    buffer = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), buffer, **options)
    return buffer.getvalue()


def shard_seeds() -> list[bytes]:
    packed = {"bytes": picture(), "path": None}
    rows = [vista_row(decoded_image=packed, choices=["x", "y"]), vista_row(decoded_image=packed, choices=None)]
    return [table(rows), table(rows, compression="none"), table(rows, use_dictionary=False, compression="none"),
            table([vista_row(image="a.png")], compression="none")]  # fmt: skip


def virl_seeds() -> list[bytes]:
    row = {"question": "<image>what ?", "answer": "\\boxed{42}", "PassRate_32BTrained": 0.5, "PassRate_7BBase": -1.0,
           "category": "a", "source": "b", "qid": "c", "image": ["images/a.png"]}  # fmt: skip
    return [table([row]), table([row, row | {"image": []}], compression="none"),
            table([row | {"PassRate_7BBase": None, "category": None}], compression="none", use_dictionary=False)]  # fmt: skip


def feed_virl(folder: Path) -> Feed:
    from racro_pl.data.readers import ViRL39KReader

    path = with_picture(folder) / "39Krelease.parquet"
    return lambda data: (path.write_bytes(data), ViRL39KReader(str(folder)).read("train"))


def prediction_seeds() -> list[bytes]:
    row = vista_row(image="a.png", response="The answer is \\boxed{A}")
    return [
        lines({"id": "1", "response": "B"}, {"id": 2, "response": 3.5}),
        lines(row),
        lines({"pid": 1, "response": None}),
    ]


def feed_predictions(folder: Path) -> Feed:
    from racro_pl.evaluation.benchmarks import find_benchmark
    from racro_pl.evaluation.scoring.predictions import read_predictions, read_rows

    path = folder / "predictions.jsonl"

    def feed(data: bytes) -> object:
        path.write_bytes(data)
        rows = read_rows(path)
        return [read_predictions(path, rows, "response", each) for each in (None, find_benchmark("mathvista"))]

    return feed


# ------------------------------------------------------------------ adapters


def adapter_config_seeds() -> list[bytes]:
    plain = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q"], "lora_dropout": 0.0, "bias": "none",
             "task_type": None, "base_model_name_or_path": "x", "inference_mode": True}  # fmt: skip
    odd = {"megatron_core": "os", "use_dora": True, "alpha_pattern": {"q": 4}, "auto_mapping": {"parent_library": "os"}}
    return [json.dumps(plain).encode(), json.dumps(plain | odd).encode(), json.dumps(plain, indent=2).encode()]


def adapted_model() -> Any:
    import torch
    from peft import LoraConfig, get_peft_model

    model = torch.nn.Sequential()
    model.add_module("q", torch.nn.Linear(4, 4))
    return get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=["q"]))


def adapter_weight_seeds() -> list[bytes]:
    from peft import get_peft_model_state_dict
    from safetensors.torch import save

    found = {f"base_model.model.{name.removeprefix('base_model.model.')}": tensor.contiguous()
             for name, tensor in get_peft_model_state_dict(adapted_model()).items()}  # fmt: skip
    name = next(iter(found))
    return [save(found), save({name: found[name]}), save({**found, name: found[name].double()})]


def feed_adapter(file: str) -> Callable[[Path], Feed]:
    """A start adapter one of whose two files is the input."""

    def make(folder: Path) -> Feed:
        from racro_pl.policy.adapters import find_adapter, start_from
        from racro_pl.policy.config import LoraSettings

        (folder / "adapter_config.json").write_bytes(adapter_config_seeds()[0])
        (folder / "adapter_model.safetensors").write_bytes(adapter_weight_seeds()[0])
        return lambda data: (
            (folder / file).write_bytes(data),
            start_from(adapted_model(), find_adapter(str(folder)), LoraSettings(rank=4, alpha=8)),
        )

    return make


# ------------------------------------------------------------------ servers


def chat_seeds() -> list[bytes]:
    def reply(message: dict[str, Any], **more: Any) -> bytes:
        choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
        body = {"model": "m", "choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}
        return json.dumps(body | more).encode()

    return [reply({"content": "So. \\boxed{4}"}), reply({"content": None, "reasoning_content": "\\boxed{4}"}),
            reply({"content": [{"type": "text", "text": "4"}]}), b'{"error": {"message": "no", "code": 400}}',
            b'{"object": "list", "data": [{"id": "m", "max_model_len": 4096}]}']  # fmt: skip


def feed_chat(folder: Path) -> Feed:
    """A server's body, as an answer and as an error, through the client that training uses."""
    import httpx

    from racro_pl.reward.http_session import require_model
    from racro_pl.serving.chat_client import ChatClient, Fault, read_reply

    served: dict[str, Any] = {}

    async def chunks() -> AsyncIterator[bytes]:
        yield served["body"]

    client = ChatClient("http://127.0.0.1:9/v1", "secret-key", attempts=1, attempt_s=5.0, backoff_s=0.0)
    client._settings["transport"] = httpx.MockTransport(lambda _: httpx.Response(served["status"], content=chunks()))
    loop = asyncio.new_event_loop()

    def ask(status: int, body: bytes) -> Any:
        served.update(status=status, body=body)
        return loop.run_until_complete(client.call("POST", "chat/completions", {}, deadline=float("inf")))

    def feed(data: bytes) -> object:
        with contextlib.suppress(Fault):
            ask(500, data)
        answer = ask(200, data)
        text = read_reply(answer)
        require_model(answer, "m")
        return text

    return feed


def rollout_seeds() -> list[bytes]:
    def choice(index: int, ids: list[int], reason: str) -> dict[str, Any]:
        return {"index": index, "token_ids": ids, "finish_reason": reason,
                "logprobs": {"content": [{"logprob": -0.5} for _ in ids]}}  # fmt: skip

    body = {
        "model": "m",
        "prompt_token_ids": [1, 2, 3],
        "choices": [choice(0, [7, 8, 2], "stop"), choice(1, [9], "length")],
    }
    return [json.dumps(body).encode()]


def feed_rollout(folder: Path) -> Feed:
    import torch

    from racro_pl.rollout.vllm_protocol import read_captions
    from racro_pl.types import Prompt

    prompt = Prompt(torch.tensor([1, 2, 3]), torch.zeros(3, dtype=torch.long), None, None)
    asked = {"model": "m", "captions": 2, "eos_ids": frozenset({2}), "banned": frozenset({5}), "pad_id": 0}

    def feed(data: bytes) -> object:
        try:
            body = json.loads(data)
        except (ValueError, RecursionError):
            return None  # what is no JSON, the client refuses: target "chat"
        return read_captions(body, prompt, **asked)

    return feed


# ------------------------------------------------------------------ texts


def answer_seeds() -> list[bytes]:
    pairs = [("So \\boxed{\\frac{1}{2}}.", "0.5"), ("<think>\\boxed{1}</think>**Answer: B**", "B"), ("6 cm", "6\\text{ cm}"),
             ("\\boxed{x^2+\\sqrt{2}}", "\\sqrt{2}+x^2"), ("(1, 2), (3, 4)", "{(3,4);(1,2)}"), ("10^{-20}", "1e-19"),
             ("the answer is 12 %", "12"), ("\\begin{pmatrix}1&2\\end{pmatrix}", "[1,2]")]  # fmt: skip
    return [f"{answer}\n{gold}".encode() for answer, gold in pairs]


def question_of(gold: str, choices: tuple[str, ...] = ()) -> Any:
    from racro_pl.types import ImageRef, Question

    metadata = {"question_type": "free_form", "answer_type": "float", "precision": 2.0, "unit": "", "choices": choices}
    kind = "choice" if choices else "math"
    return Question("1", (ImageRef(data=b"x"),), "what ?", "A" if choices else gold, kind, choices, metadata=metadata)


def split_pair(data: bytes) -> tuple[str, str]:
    """A response, and behind its last line break a gold answer. Half an emoji is a lone surrogate, as in JSON."""
    response, _, gold = data.decode("utf-8", "surrogateescape").rpartition("\n")
    return response, gold


def feed_equality(folder: Path) -> Feed:
    """Extraction and what is decided without a symbolic library."""
    from racro_pl.text.answers import extract_answer, unbox
    from racro_pl.text.equality import quick_equal, texts_equal

    def feed(data: bytes) -> object:
        response, gold = split_pair(data)
        answer = extract_answer(response) or response
        return quick_equal(answer, unbox(gold)), texts_equal(answer, gold)

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
    from racro_pl.evaluation.benchmarks import BENCHMARKS
    from racro_pl.evaluation.outcomes import Tools
    from racro_pl.reward.grader import Grader

    tools = Tools(Grader(limit_s=1.0))
    rules = [BENCHMARKS[name].rules for name in ("own", "mathvision", "mathvista", "mathverse")]
    known = [rule for each in rules for rule in each.values()]

    def feed(data: bytes) -> object:
        response, gold = split_pair(data)
        questions = (question_of(gold), question_of(gold, ("x", gold)))
        return [rule(question, response, tools) for rule in known for question in questions]

    return feed


TARGETS: dict[str, Target] = {
    "images": Target("image files", image_seeds, feed_image),
    "jsonl": Target("own questions", question_seeds, feed_jsonl),
    "virl39k": Target("training parquet", virl_seeds, feed_virl),
    "tsv": Target("benchmark TSV", tsv_seeds, feed_benchmark("MathVista_MINI.tsv")),
    "json-rows": Target("benchmark jsonl", json_row_seeds, feed_benchmark("testmini.jsonl")),
    "json-file": Target("benchmark json", json_file_seeds, feed_benchmark("testmini.json")),
    "shards": Target("benchmark parquet", shard_seeds, feed_benchmark("testmini-00000-of-00001.parquet")),
    "predictions": Target("prediction files", prediction_seeds, feed_predictions),
    "adapter-config": Target("adapter_config.json", adapter_config_seeds, feed_adapter("adapter_config.json")),
    "adapter-weights": Target("adapter safetensors", adapter_weight_seeds, feed_adapter("adapter_model.safetensors")),
    "chat": Target("reasoner replies", chat_seeds, feed_chat),
    "rollout": Target("rollout replies", rollout_seeds, feed_rollout),
    "equality": Target("answers", answer_seeds, feed_equality),
    "grader": Target("graded answers", answer_seeds, feed_grader),
    "rules": Target("scoring rules", answer_seeds, feed_rules),
}
"""Every target by the name that ``--targets`` takes."""
