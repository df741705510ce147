"""Good inputs of every target, and a few that were a fault once: what the fuzzer changes."""

from __future__ import annotations

import base64
import functools
import io
import json
from typing import Any


def lines(*rows: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


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


def question_seeds() -> list[bytes]:
    row = {"id": "1", "question": "what <image> ?", "image": "a.png", "answer": "red", "category": "color"}
    choice = {"id": 2, "question": "which ?", "images": ["a.png", "a.png"], "options": ["x", "y"], "answer": "A"}
    math = {"index": "3", "question": "how many ?", "image": "a.png", "choices": "['1', '2']", "answer": "\\boxed{2}"}
    return [lines(row), lines(choice), lines(math), lines(row, choice, math)]


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
            table([row | {"PassRate_7BBase": None}], compression="none", use_dictionary=False)]  # fmt: skip


def prediction_seeds() -> list[bytes]:
    row = vista_row(image="a.png", response="The answer is \\boxed{A}")
    return [
        lines({"id": "1", "response": "B"}, {"id": 2, "response": 3.5}),
        lines(row),
        lines({"pid": 1, "response": None}),
    ]


def adapter_config_seeds() -> list[bytes]:
    plain = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q"], "lora_dropout": 0.0, "bias": "none",
             "task_type": None, "base_model_name_or_path": "x", "inference_mode": True}  # fmt: skip
    odd = {"megatron_core": "os", "use_dora": True, "alpha_pattern": {"q": 4}, "auto_mapping": {"parent_library": "os"}}
    return [json.dumps(plain).encode(), json.dumps(plain | odd).encode(), json.dumps(plain, indent=2).encode()]


def adapted_model() -> Any:
    import torch
    from peft import LoraConfig, get_peft_model

    model: Any = torch.nn.Sequential()
    model.add_module("q", torch.nn.Linear(4, 4))
    model.name_or_path = "base"
    return get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=["q"]))


def adapter_weight_seeds() -> list[bytes]:
    from peft import get_peft_model_state_dict
    from safetensors.torch import save

    found = {f"base_model.model.{name.removeprefix('base_model.model.')}": tensor.contiguous()
             for name, tensor in get_peft_model_state_dict(adapted_model()).items()}  # fmt: skip
    name = next(iter(found))
    return [save(found), save({name: found[name]}), save({**found, name: found[name].double()})]


def chat_seeds() -> list[bytes]:
    def reply(message: dict[str, Any], **more: Any) -> bytes:
        choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
        body = {"model": "m", "choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}
        return json.dumps(body | more).encode()

    return [reply({"content": "So. \\boxed{4}"}), reply({"content": None, "reasoning_content": "\\boxed{4}"}),
            reply({"content": [{"type": "text", "text": "4"}]}), b'{"error": {"message": "no", "code": 400}}',
            b'{"object": "list", "data": [{"id": "m", "max_model_len": 4096}]}']  # fmt: skip


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


def answer_seeds() -> list[bytes]:
    pairs = [("So \\boxed{\\frac{1}{2}}.", "0.5"), ("<think>\\boxed{1}</think>**Answer: B**", "B"),
             ("6 cm", "6\\text{ cm}"),
             ("\\boxed{x^2+\\sqrt{2}}", "\\sqrt{2}+x^2"), ("(1, 2), (3, 4)", "{(3,4);(1,2)}"), ("10^{-20}", "1e-19"),
             ("the answer is 12 %", "12"), ("\\begin{pmatrix}1&2\\end{pmatrix}", "[1,2]")]  # fmt: skip
    return [f"{answer}\n{gold}".encode() for answer, gold in pairs]
