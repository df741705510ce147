"""Captioner prompts in the chat formats of Qwen2.5-VL and Qwen3-VL, to the last token."""

from __future__ import annotations

from pathlib import Path

import pytest

from racro_pl.policy.config import PolicySettings
from racro_pl.policy.loading import load_encoder
from racro_pl.policy.prompts import PromptEncoder
from racro_pl.text.captioner_prompt import SYSTEM, tentative_messages
from tests.fakes.chat_templates import QWEN2_5_VL, QWEN3_VL, use_template
from tests.fakes.models import save_small_model
from tests.unit.policy.conftest import picture, question

# An image of 128 x 64 pixels: 5 x 2 tokens of 28 x 28 pixels (140 x 56), or 4 x 2 of 32 x 32.
FORMATS = {"qwen2_5_vl": (QWEN2_5_VL, 10), "qwen3_vl": (QWEN3_VL, 8)}
REQUEST = "\nPlease describe the image. DO NOT try to answer the question!"


@pytest.fixture(scope="module", params=FORMATS)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def encoder(family: str, tmp_path_factory: pytest.TempPathFactory) -> PromptEncoder:
    folder: Path = save_small_model(tmp_path_factory.mktemp(family), family)
    use_template(folder, FORMATS[family][0])
    return load_encoder(PolicySettings(path=str(folder), min_pixels=56 * 56, max_pixels=256 * 256))


def image(family: str) -> str:
    return f"<|vision_start|>{'<|image_pad|>' * FORMATS[family][1]}<|vision_end|>"


def chat(system: str, user: str) -> str:
    turns = f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{user}<|im_end|>\n"
    return turns + "<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("text", "user"),
    [
        ("Which is larger?", "{image}{image}Question: Which is larger?"),
        ("Is <image> in <image> ?", "Question: Is {image} in {image} ?"),
        ("<image><image>Same?", "Question: {image}{image}Same?"),
    ],
)
def test_a_caption_is_asked_for_with_every_image_in_its_place(encoder, family, text, user):
    asked = question("two", text, picture(128, 64, 1), picture(128, 64, 2))
    prompt = encoder.encode(asked)
    assert encoder.tokenizer.decode(prompt.input_ids) == chat(SYSTEM, user.format(image=image(family)) + REQUEST)
    # Each of them one token, not its letters; and those of images are marked, for the positions.
    pads = prompt.input_ids == encoder.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert int(pads.sum()) == 2 * FORMATS[family][1]
    assert prompt.mm_token_type_ids.bool().tolist() == pads.tolist()
    assert prompt.vision["image_grid_thw"].prod(dim=1).tolist() == 2 * [4 * FORMATS[family][1]]
    assert encoder.count_tokens(asked) == len(prompt.input_ids)


def test_a_question_without_an_image_is_asked_as_it_is(encoder):
    prompt = encoder.encode(question("none", "How many?"))
    assert encoder.tokenizer.decode(prompt.input_ids) == chat(SYSTEM, "Question: How many?" + REQUEST)
    assert prompt.pixel_values is None


def test_an_answer_is_asked_for_after_one_system_message(encoder, family):
    """Qwen2.5-VL's template would add one of its own, Qwen3-VL's none: ours makes both the same."""
    prompt = encoder.encode(question("one", "How many?", picture(128, 64, 1)), tentative_messages)
    user = image(family) + "How many? Please think step by step. The final answer MUST BE put in \\boxed{}."
    assert encoder.tokenizer.decode(prompt.input_ids) == chat("You are a helpful assistant.", user)
