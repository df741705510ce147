"""The shipped captioner, loaded as users load it: it sees but does not listen, and answers badly by itself."""

from collections import Counter, defaultdict
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from racro_pl.figure_world.models import resolve_model
from racro_pl.figure_world.world import SIDE, TYPES, VALUES, audit_caption, figure_questions
from racro_pl.policy.captioner import Captioner
from racro_pl.policy.families import family_of
from racro_pl.policy.prompts import PromptEncoder
from racro_pl.text.answers import extract_answer
from racro_pl.text.captioner_prompt import tentative_messages


@pytest.fixture(scope="module")
def captioner():
    folder = resolve_model("embedded:figure-captioner")
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    encoder = PromptEncoder(AutoProcessor.from_pretrained(folder), SIDE**2, SIDE**2)
    return Captioner(model, encoder, family_of(model.config.model_type)).eval()


@pytest.fixture(scope="module")
def questions():
    return figure_questions("test", 200, seed=21)


@pytest.fixture(scope="module")
def sampled(captioner, questions):
    torch.manual_seed(0)
    captions = captioner.generate([captioner.encode(q) for q in questions], 2, 24, temperature=1.0)
    return [(questions[row // 2], captions.texts[row], captions.truncated[row]) for row in range(2 * len(questions))]


@pytest.fixture(scope="module")
def greedy(captioner, questions):
    captions = captioner.generate([captioner.encode(q) for q in questions], 1, 24, temperature=None)
    return list(zip(questions, captions.texts, captions.truncated, strict=True))


def test_prompt_is_short_and_the_image_four_tokens(captioner, questions):
    prompt = captioner.encode(questions[0])
    assert int(prompt.mm_token_type_ids.sum()) == 4  # 56 x 56 pixels = 4 x 4 patches of 14, merged 2 x 2
    assert captioner.encoder.count_tokens(questions[0]) == len(prompt.input_ids) < 100


def test_captioner_sees_every_type_of_fact(sampled):
    """Of what is there, whatever it says is true; how often it names what is not there is the next test's."""
    true, said = Counter(), Counter()
    for question, caption, _ in sampled:
        facts = question.metadata["facts"]
        for sentence in caption.split("."):
            *key, value = sentence.split() or [""]
            if " ".join(key) in facts:
                said[key[0]] += 1
                true[key[0]] += facts[" ".join(key)] == value
    for kind in TYPES:
        # Each type is explored: at least 5 % of the sentences.
        assert said[kind] / said.total() >= 0.05, said
        assert true[kind] / said[kind] >= 0.95, (kind, true, said)


def true_share(described):
    audits = [audit_caption(question, caption) for question, caption, _ in described]
    return sum(a.true_sentences for a in audits) / sum(a.sentences for a in audits)


def test_captions_are_well_formed_and_end(sampled, greedy):
    # The floor that training has to keep, even at temperature 1; greedily hardly a sentence is wrong.
    assert true_share(sampled) >= 0.87
    assert true_share(greedy) >= 0.95
    assert sum(truncated for _, _, truncated in sampled) <= 0.02 * len(sampled)


@pytest.mark.parametrize("temperature", [None, pytest.param(1.0, marks=pytest.mark.slow)])
def test_captioner_ignores_the_question(captioner, questions, temperature):
    """Whether it is asked about a fact or about another one, it states that fact about as often."""
    torch.manual_seed(0)
    share = {}
    for name, shift in (("asked", 0), ("not asked", 1)):
        texts = [questions[(i + shift) % len(questions)].text for i in range(len(questions))]
        prompts = [captioner.encode(replace(q, text=text)) for q, text in zip(questions, texts, strict=True)]
        captions = captioner.generate(prompts, 1, 24, temperature).texts
        stated = [audit_caption(q, caption).asked_stated for q, caption in zip(questions, captions, strict=True)]
        share[name] = sum(stated) / len(stated)
    assert share["asked"] <= 0.55
    # Standard error of the difference at 200 scenes: about 0.04.
    assert share["asked"] - share["not asked"] <= 0.2, share


def test_captioner_answers_by_itself_in_the_reasoners_form(captioner, questions):
    prompts = [captioner.encode(question, tentative_messages) for question in questions]
    assert max(len(prompt.input_ids) for prompt in prompts) < 100
    answers = captioner.generate(prompts, 1, 16, temperature=None)
    assert not any(answers.truncated)
    right = defaultdict(list)
    for question, text in zip(questions, answers.texts, strict=True):
        key, answer = question.metadata["key"], extract_answer(text)
        assert text == f" {key} \\boxed{{ {answer}}}"
        assert answer in VALUES[question.category]
        right[question.category].append(answer == question.answer)
    share = {kind: sum(rows) / len(rows) for kind, rows in right.items()}
    # It looks at the colours of two of the four shapes; all else is one answer for every image.
    assert 0.25 <= sum(share.values()) / len(TYPES) <= 0.55, share
    assert all(0.1 <= share[kind] <= 0.8 for kind in TYPES), share


def test_captions_hold_no_boxes(sampled):
    """Answering is not describing: the form of an answer does not leak into captions, even at temperature 1."""
    assert sum("boxed" in caption for _, caption, _ in sampled) <= 0.02 * len(sampled)
