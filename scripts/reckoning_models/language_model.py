r"""A pretrained language model as a reasoner of the reckoning world: a short LoRA stage on text alone.

    python -m reckoning_models.language_model OUT --model .models/smollm2-135m-instruct

(in ``scripts/``.) The model learns to read captions and to answer in a box, in a form that its own training knew:
``red has 5 dots. blue has 3 dots. 5 + 3 = 8. \boxed{8}``. It sees no image, and no caption that a captioner wrote. OUT
becomes a model folder, with the adapter merged.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from racro_pl.reckoning_world.world import ASKED, dots_sentence, question_text
from reckoning_models.rows import UNKNOWN, Asked, draw_asked, render_prompt

RANK = 16
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
Row = tuple[list[int], list[int]]
"""Token ids of a prompt and of its reply."""


def worked_out(asked: Asked) -> str:
    r"""The reply to be learnt: what the caption states of each tile, the sum, and the box.

    >>> worked_out(Asked("two_steps", ("red", "blue", "green"), (5, 3, 2)))
    'red has 5 dots. blue has 3 dots. green has 2 dots. 5 + 3 = 8. 8 - 2 = 6. \\boxed{6}'
    >>> worked_out(Asked("more", ("red", "blue"), (5, None)))
    'red has 5 dots. blue is unknown. \\boxed{unknown}'
    """
    told = [
        f"{color} is {UNKNOWN}." if dots is None else dots_sentence(color, dots)
        for color, dots in zip(asked.colors, asked.stated, strict=True)
    ]
    dots = [count for count in asked.stated if count is not None]
    if len(dots) == len(asked.stated):
        if asked.kind == "more":
            told.append(f"{max(dots)} > {min(dots)}.")
        else:
            total, *rest = dots
            for sign, count in zip("-" if asked.kind == "difference" else "+-", rest, strict=False):
                result = total + count if sign == "+" else total - count
                told.append(f"{total} {sign} {count} = {result}.")
                total = result
    return f"{' '.join(told)} \\boxed{{{asked.answer(None)}}}"


def draw_row(tokenizer: PreTrainedTokenizerBase, rng: random.Random) -> Row:
    """A prompt with a caption, as the reasoner gets it, and the reply to it."""
    asked, caption = draw_asked(rng, tuple(ASKED))
    prompt = render_prompt(tokenizer, question_text(asked.kind, asked.colors), caption, None)
    return tokenizer.encode(prompt), [*tokenizer.encode(worked_out(asked)), tokenizer.eos_token_id]


def packed(rows: Sequence[Row]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows as one sequence: what all of them begin with stands once, and no row attends to another.

    Returns:
        Token ids, positions, targets (1, t) each; -100 where nothing is to be learnt; and who attends to whom,
        (1, 1, t, t).
    """
    prompts = [prompt for prompt, _ in rows]
    shared = next(at for at, tokens in enumerate(zip(*prompts, strict=False)) if len(set(tokens)) > 1)
    ids, positions, targets = list(prompts[0][:shared]), list(range(shared)), [-100] * shared
    owner = [-1] * shared
    for index, (prompt, reply) in enumerate(rows):
        own = prompt[shared:] + reply
        ids += own
        positions += range(shared, shared + len(own))
        # The token at t predicts the one after it; the last one of a reply has none.
        targets += [-100] * (len(own) - len(reply) - 1) + reply + [-100]
        owner += [index] * len(own)
    owners = torch.tensor(owner)
    seen = (owners.unsqueeze(0) == owners.unsqueeze(1)) | (owners.unsqueeze(0) == -1)
    return (*(torch.tensor([each]) for each in (ids, positions, targets)), seen.tril()[None, None])


def reply_loss(model: nn.Module, rows: Sequence[Row]) -> Tensor:
    """Mean cross-entropy of the tokens of the replies."""
    ids, positions, targets, seen = packed(rows)
    base = model.get_base_model()  # type: ignore[operator]
    bias = torch.zeros(seen.shape, dtype=base.dtype).masked_fill(~seen, torch.finfo(base.dtype).min)
    hidden = base.model(input_ids=ids, position_ids=positions, attention_mask=bias, use_cache=False)
    learnt = targets != -100
    logits = base.lm_head(hidden.last_hidden_state[learnt])
    return nn.functional.cross_entropy(logits.float(), targets[learnt])


def teach(path: str, out: Path, steps: int, size: int, rate: float, seed: int) -> None:
    """Train an adapter for the model at ``path`` on ``steps`` batches of ``size`` rows; ``out`` has both as one."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    tokenizer = AutoTokenizer.from_pretrained(path)
    base = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16)
    model = get_peft_model(base, LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=TARGETS, task_type="CAUSAL_LM"))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rate)
    for step in range(steps):
        begin = time.process_time()
        warm = min(1.0, (step + 1) / 10)
        optimizer.param_groups[0]["lr"] = rate * warm * (0.05 + 0.475 * (1 + math.cos(math.pi * step / steps)))
        loss = reply_loss(model, [draw_row(tokenizer, rng) for _ in range(size)])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        if step % 10 == 0 or step == steps - 1:
            print(f"step {step}: loss {float(loss.detach()):.4f}, {time.process_time() - begin:.1f} s", flush=True)
    # In float32: a bfloat16 sum would round the adapter's small changes away.
    model.float().merge_and_unload().to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default=".models/smollm2-135m-instruct")
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--rows", type=int, default=8, help="per step")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    teach(options.model, options.out, options.steps, options.rows, options.rate, options.seed)
    print(f"model in {options.out}")


if __name__ == "__main__":
    main()
