"""A small vLLM in this process: the endpoints that rollouts use, over a copy of the captioner on transformers.

It reads the chat and the images as vLLM does, with the model folder's own processor, so a test sees whether what was
sent makes the trainer's prompt again. Faults are switched on by name.
"""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file

from racro_pl.policy.captioner import Captioner
from racro_pl.types import Prompt


class FakeVllm:
    """Serves a captioner and one adapter at a time on a free port of 127.0.0.1.

    Args:
        captioner: an own copy: adapters are loaded into it.
        key: that requests below ``/v1`` need.
        uds: Unix socket to listen on instead.
        fault: ``""`` for none; ``no lora`` (adapters cannot be loaded), ``deaf`` (they are, without an effect),
            ``other prompt``, ``other model``, ``banned``, ``cut ids``, ``no ids``, ``wrong end``, ``500``, ``hang``,
            ``raw log-probs`` (before bias and temperature, as without its flag), ``no sleep`` (as without its flags).
    """

    def __init__(
        self, captioner: Captioner, fault: str = "", context: int = 4096, key: str = "", uds: Path | None = None
    ) -> None:
        self.captioner = captioner.eval()
        self.fault = fault
        self.context = context
        self.key = key
        self.uds = uds
        self.adapters: dict[str, dict[str, torch.Tensor]] = {}
        self.log: list[str] = []
        """Loads and unloads, sleep and waking, in order."""
        self.asleep = False
        self.chats: list[dict[str, Any]] = []
        self._lock = threading.Lock()

    def __enter__(self) -> FakeVllm:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None:
                pass

            def locked(self) -> bool:
                wrong = bool(fake.key) and self.headers.get("authorization") != f"Bearer {fake.key}"
                if wrong and self.path.startswith("/v1"):
                    self.reply(401, {"error": "Unauthorized"})
                    return True
                return False

            def do_GET(self) -> None:
                if self.locked():
                    return
                entries = [{"id": "base", "parent": None, "max_model_len": fake.context}]
                entries += [{"id": name, "parent": "base", "max_model_len": None} for name in fake.adapters]
                self.reply(200, {"data": entries})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"{}")
                if self.locked():
                    return
                with fake._lock:
                    self.reply(*fake.route(self.path, body))

            def reply(self, status: int, answer: Any) -> None:
                data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self._server: Any = (
            ThreadingUnixStreamServer(str(self.uds), Handler)
            if self.uds
            else ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        )
        self._server.daemon_threads = True
        self.url = "http://localhost/v1" if self.uds else f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def route(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path in ("/sleep?level=1", "/wake_up"):
            return self.nap(path)
        if self.asleep:
            return 503, {"error": {"message": "asleep"}}
        if path.endswith("/chat/completions"):
            return self.probe(body) if body["model"] == "base" else self.chat(body)
        if self.fault == "no lora":
            return 404, {"detail": "Not Found"}
        name = body["lora_name"]
        if path.endswith("/unload_lora_adapter"):
            self.log.append(f"unload {name}")
            return (200, "Success: removed") if self.adapters.pop(name, None) else (404, {"error": {"message": "none"}})
        if name in self.adapters:
            return 400, {"error": {"message": f"The lora adapter '{name}' has already been loaded."}}
        self.log.append(f"load {name}")
        folder = Path(body["lora_path"])
        assert json.loads((folder / "adapter_config.json").read_text())["peft_type"] == "LORA"
        self.adapters[name] = load_file(folder / "adapter_model.safetensors")
        return 200, f"Success: LoRA adapter '{name}' added successfully."

    def nap(self, path: str) -> tuple[int, Any]:
        if self.fault == "no sleep":
            return 404, {"detail": "Not Found"}
        self.asleep = path.startswith("/sleep")
        self.log.append("sleep" if self.asleep else "wake")
        return 200, {"status": "sleeping" if self.asleep else "awake"}

    @torch.no_grad()
    def probe(self, body: dict[str, Any]) -> tuple[int, Any]:
        """One token of the base after a chat without images, with a logit bias."""
        logits = self.captioner.model(input_ids=self._read(body["messages"]).input_ids[None]).logits[0, -1]
        biased = logits.clone()
        for token, bias in body["logit_bias"].items():
            biased[int(token)] += bias
        told = logits if self.fault == "raw log-probs" else biased / body["temperature"]
        value = float(told.log_softmax(-1)[biased.argmax()])
        return 200, {"model": "base", "choices": [{"logprobs": {"content": [{"token": "", "logprob": value}]}}]}

    def chat(self, body: dict[str, Any]) -> tuple[int, Any]:
        self.chats.append(body)
        if self.fault == "hang":
            time.sleep(3600)
        if self.fault == "500":
            return 500, {"error": {"message": "told to fail"}}
        if body["model"] not in self.adapters:
            return 404, {"error": {"message": f"The model {body['model']} does not exist."}}
        if self.fault != "deaf":
            self._apply(self.adapters[body["model"]])
        prompt = self._read(body["messages"])
        temperature = body["temperature"] or None
        torch.manual_seed(len(self.chats))
        captions = self.captioner.generate([prompt], body["n"], body["max_tokens"], temperature)
        logprobs = self.captioner.frozen_logprobs(
            [prompt], torch.zeros(body["n"], dtype=torch.long), captions.token_ids, captions.mask, temperature or 1.0,
            reference=False,
        )  # fmt: skip
        choices = []
        for index, (ids, mask, row) in enumerate(zip(captions.token_ids, captions.mask, logprobs, strict=True)):
            written, values = ids[mask].tolist(), row[mask].tolist()
            reason = "length" if captions.truncated[index] else "stop"
            choices.append(self._choice(index, written, values, reason))
        ids = prompt.input_ids.tolist()
        if self.fault == "other prompt":
            ids = [*ids[:7], ids[7] + 1, *ids[8:]]
        model = "base" if self.fault == "other model" else body["model"]
        # Last first: the order of the choices is not promised.
        return 200, {"model": model, "prompt_token_ids": ids, "choices": choices[::-1]}

    def _choice(self, index: int, written: list[int], values: list[float], reason: str) -> dict[str, Any]:
        if self.fault == "banned":
            written[0] = int(self.captioner.banned.nonzero()[0])
        if self.fault == "cut ids":
            written.pop()
        if self.fault == "wrong end":
            reason = "length" if reason == "stop" else "stop"
        choice = {"index": index, "finish_reason": reason, "token_ids": written,
                  "logprobs": {"content": [{"token": "", "logprob": value} for value in values]}}  # fmt: skip
        if self.fault == "no ids":
            del choice["token_ids"]
        return choice

    def _apply(self, adapter: dict[str, torch.Tensor]) -> None:
        names = {name.replace(".default.", "."): p for name, p in self.captioner.model.named_parameters()}
        with torch.no_grad():
            for name, tensor in adapter.items():
                names[name].copy_(tensor)

    def _read(self, messages: list[dict[str, Any]]) -> Prompt:
        images, chat = [], []
        for message in messages:
            parts = []
            for part in message["content"]:
                if part["type"] == "image_url":
                    data = base64.b64decode(part["image_url"]["url"].removeprefix("data:image/png;base64,"))
                    images.append(Image.open(io.BytesIO(data)))
                parts.append({"type": "image"} if part["type"] == "image_url" else part)
            chat.append({"role": message["role"], "content": parts})
        processor = self.captioner.encoder.processor
        text = processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        inputs = processor(text=[text], images=images or None, return_mm_token_type_ids=True, return_tensors="pt")
        text = [inputs.pop(name)[0] for name in ("input_ids", "mm_token_type_ids", "attention_mask")]
        return Prompt(text[0], text[1], dict(inputs))
