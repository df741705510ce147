"""The README of an exported folder, as the Hugging Face hub reads it."""

from __future__ import annotations

import json
from typing import Any

import yaml

from racro_pl import __version__
from racro_pl.commands.public import SERVED, model_name, public
from racro_pl.evaluation.report.formatting import interval, percent
from racro_pl.evaluation.results import Results, System
from racro_pl.figure_world.models import PREFIX
from racro_pl.policy.config import PolicySettings
from racro_pl.text.captioner_prompt import captioner_messages, tentative_messages

_QUESTION = "{question}"
_USE = """\
import torch
from PIL import Image
{imports}

folder = "{folder}"  # this repository's id, or where its files are
question = "What is shown in the picture?"
messages = {messages}
{model}
processor = AutoProcessor.from_pretrained(folder)
text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
inputs = processor(text=[text], images=[Image.open("picture.png").convert("RGB")], return_tensors="pt")
with torch.inference_mode():
    # Without a penalty on repetition, as in training; some bases come with one.
    written = model.generate(
        **inputs.to(model.device), max_new_tokens={tokens}, do_sample=False, repetition_penalty=1.0
    )
print(processor.decode(written[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
"""
_ADAPTER = """\
model = AutoModelForImageTextToText.from_pretrained({base}, dtype={dtype})
model = PeftModel.from_pretrained(model, folder).eval()"""
_WHOLE = "model = AutoModelForImageTextToText.from_pretrained(folder, dtype={dtype}).eval()"


def model_card(
    policy: PolicySettings,
    config: dict[str, Any],
    results: Results | None,
    *,
    base: str | None,
    whole: bool,
    repository: str | None = None,
) -> str:
    """Base, how to use it, data, reasoner, settings, scores; nothing but what :mod:`.public` allows.

    Args:
        policy: how the base was loaded.
        config: the run's resolved configuration; empty when unknown.
        base: what others load the base by; None when that is unknown.
        whole: a whole model, or an adapter.
        repository: hub id that the folder is uploaded to.
    """
    front: dict[str, Any] = {"base_model": base} if base and not base.startswith(PREFIX) else {}
    front |= {"library_name": "transformers" if whole else "peft", "pipeline_tag": "image-text-to-text",
              "tags": ["racro", "captioner", "grpo"]}  # fmt: skip
    shown = base or model_name(policy.path) or "an unnamed base"
    lines = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n",
        "# Captioner trained by racro_pl\n",
        f"A captioner for *{shown}*: it writes, for an image and a question, the description that a text-only "
        "reasoner needs to answer. Trained by GRPO with the reasoner's success as reward (RACRO, 2025), by racro_pl "
        f"{__version__}.\n",
        f"## Use\n\n```python\n{_usage(config, base or shown, whole, repository)}```\n",
    ]
    if results is not None:
        lines += _scores(results)
    for title, content in _settings(config).items():
        if content:
            lines.append(f"## {title}\n\n```yaml\n{yaml.safe_dump(content, sort_keys=False)}```\n")
    return "\n".join(lines)


def _usage(config: dict[str, Any], base: str, whole: bool, repository: str | None) -> str:
    """Python that asks what the training asked; its prompt is the trainer's own, with the question as a variable."""
    answers = _part(config, "model", "objective").get("name") == "qa"
    chat = (tentative_messages if answers else captioner_messages)(_QUESTION, 1)
    messages = json.dumps(chat, indent=4)  # Python too
    for text in [part["text"] for message in chat for part in message["content"] if _QUESTION in part.get("text", "")]:
        literal = json.dumps(text)
        messages = messages.replace(literal, f'{literal}.replace("{_QUESTION}", question)')
    rollout = public(_part(config, "model", "rollout"), "rollout") or {}
    dtype = "torch.bfloat16" if _part(config, "model", "policy").get("dtype") != "float32" else "torch.float32"
    imports = ["from transformers import AutoModelForImageTextToText, AutoProcessor"]
    loaded = json.dumps(base)
    if not whole:
        imports.insert(0, "from peft import PeftModel")
        if base.startswith(PREFIX):
            imports.append("\nfrom racro_pl.figure_world.models import resolve_model")
            loaded = f"resolve_model({loaded})"
    return _USE.format(
        imports="\n".join(imports),
        folder=repository or ".",
        messages=messages,
        model=(_WHOLE if whole else _ADAPTER).format(base=loaded, dtype=dtype),
        tokens=rollout.get("max_new_tokens", 1024),
    )


def _part(config: dict[str, Any], *names: str) -> dict[str, Any]:
    value: Any = config
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    titles = {"reward": "Reasoner and reward", "rollout": "Sampling", "objective": "Objective", "policy": "Policy"}
    return {"Data": public(_part(config, "data").get("reader"), "reader")} | {
        title: public(_part(config, "model", name), name) for name, title in titles.items()
    }


def _scores(results: Results) -> list[str]:
    lines = ["## Scores\n\n| system | benchmark | headline in % | 95 % interval | questions |\n|---|---|---|---|---|"]
    lines += [
        f"| {_label(cell.system, results)} | {cell.title} ({cell.headline_name}) | {percent(cell.headline)} "
        f"| {interval(cell.low, cell.high)} | {cell.n} of {cell.expected or cell.n} |"
        for cell in results.cells
        if cell.headline is not None and cell.low is not None and cell.high is not None
    ]
    return [*lines, f"\nScored by the rule `{results.settings.get('rule')}`.\n"]


def _label(system: System, results: Results) -> str:
    """The system's, without the address that a served captioner is called by where it was given no name."""
    place = str(results.settings.get("captioners", {}).get(system.captioner, ""))
    served = place == SERVED or "://" in place
    if served and (set(".:") & set(system.captioner) or system.captioner == "localhost"):
        return system.label.replace(system.captioner, "a served captioner")
    return system.label
