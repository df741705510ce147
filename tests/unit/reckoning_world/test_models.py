"""The shipped models as users load them: a captioner that sees and does not listen, reasoners of rising strength."""

import random
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from racro_pl.figure_world.models import EMBEDDED, resolve_model
from racro_pl.figure_world.world import COLORS, SIDE
from racro_pl.policy.captioner import Captioner
from racro_pl.policy.families import family_of
from racro_pl.policy.prompts import PromptEncoder
from racro_pl.reckoning_world.world import audit_caption, reckoning_questions, true_caption
from racro_pl.reward import InProcessReasoner
from racro_pl.text.answers import extract_answer
from racro_pl.text.captioner_prompt import tentative_messages
from racro_pl.text.reasoner_prompt import joint_messages, reasoner_messages

REASONERS = ("reckoning-weak", "reckoning-middle", "reckoning-strong")
FOLDERS = {name: Path(folder) for name, folder in EMBEDDED.items() if name.startswith("reckoning-")}


def test_the_models_are_small_and_of_two_architectures():
    assert set(FOLDERS) == {"reckoning-captioner", "reckoning-narrow", *REASONERS}
    sizes = {name: sum(file.stat().st_size for file in folder.iterdir()) for name, folder in FOLDERS.items()}
    assert sum(sizes.values()) <= 6_000_000
    assert sizes["reckoning-weak"] < sizes["reckoning-middle"] < sizes["reckoning-strong"]
    assert {AutoConfig.from_pretrained(FOLDERS[name]).model_type for name in REASONERS} == {"qwen2", "lfm2"}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_number_is_one_token_after_loading(name):
    """transformers gives a Qwen2 folder its own rule for splitting text, which would cut it in two."""
    tokenizer = AutoTokenizer.from_pretrained(FOLDERS[name])
    for word in (*map(str, range(19)), *COLORS):
        assert len(tokenizer.encode(f" {word}", add_special_tokens=False)) == 1
    text = " red has 5 dots. blue has 1 dot. background is dark."
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


# ------------------------------------------------------------------ reasoners


@pytest.fixture(scope="module")
def questions():
    return reckoning_questions("test", 120, seed=21)


@pytest.fixture(scope="module")
def ask():
    """Greedy answers of a reasoner to chats."""

    def answers(name, chats):
        reasoner = InProcessReasoner(f"embedded:{name}", temperature=0.0, max_new_tokens=22)
        replies = [future.result() for future in reasoner.submit(chats)]
        assert not any(reply.truncated for reply in replies)
        return [extract_answer(reply.text) for reply in replies]

    return answers


@pytest.mark.parametrize(("name", "least", "most"), [
    ("reckoning-weak", 0.4, 0.66), ("reckoning-middle", 0.8, 1.0), ("reckoning-strong", 0.95, 1.0),
])  # fmt: skip
def test_strength_on_true_captions(ask, questions, name, least, most):
    chats = [reasoner_messages(question.text, f" {true_caption(question)}") for question in questions]
    right = [answer == q.answer for answer, q in zip(ask(name, chats), questions, strict=True)]
    assert least <= sum(right) / len(right) <= most


def test_the_narrow_one_cannot_add(ask, questions):
    right = defaultdict(list)
    chats = [reasoner_messages(question.text, f" {true_caption(question)}") for question in questions]
    for question, answer in zip(questions, ask("reckoning-narrow", chats), strict=True):
        right[question.category].append(answer == question.answer)
    shares = {kind: sum(found) / len(found) for kind, found in right.items()}
    assert shares["sum"] <= 0.04
    assert shares["two_steps"] <= 0.1
    assert shares["difference"] >= 0.9
    assert shares["more"] >= 0.6


@pytest.mark.parametrize("name", REASONERS)
def test_what_a_caption_does_not_tell_is_not_guessed(ask, questions, name):
    rng = random.Random(1)
    chats = []
    for question in questions:
        told = dict(question.metadata["sentences"])
        del told[f"dots of {rng.choice(question.metadata['colors'])}"]
        chats.append(reasoner_messages(question.text, "".join(f" {rng.choice(list(told.values()))}" for _ in range(3))))
    refused = [answer == "unknown" for answer in ask(name, chats)]
    assert sum(refused) / len(refused) >= 0.95


def test_a_wrong_tentative_answer_hardly_misleads_the_strong_one(ask, questions):
    chats = []
    for question in questions:
        others = [q.answer for q in questions if q.category == question.category and q.answer != question.answer]
        wrong = random.Random(question.id).choice(others)
        chats.append(joint_messages(question.text, f" {true_caption(question)}", f" \\boxed{{ {wrong}}}"))
    right = [a == q.answer for a, q in zip(ask("reckoning-strong", chats), questions, strict=True)]
    assert sum(right) / len(right) >= 0.93


# ------------------------------------------------------------------ captioner


@pytest.fixture(scope="module")
def captioner():
    folder = resolve_model("embedded:reckoning-captioner")
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    encoder = PromptEncoder(AutoProcessor.from_pretrained(folder), SIDE**2, SIDE**2)
    return Captioner(model, encoder, family_of(model.config.model_type)).eval()


@pytest.fixture(scope="module")
def audits(captioner, questions):
    """Of captions at temperature 1, and of greedy ones."""
    torch.manual_seed(0)
    found = {}
    for temperature in (1.0, None):
        texts = captioner.generate([captioner.encode(q) for q in questions], 1, 13, temperature).texts
        found[temperature] = [audit_caption(q, text) for q, text in zip(questions, texts, strict=True)]
    return found


def test_it_sees(audits):
    for rows, floor in ((audits[1.0], 0.9), (audits[None], 0.97)):
        assert sum(a.true_sentences for a in rows) / sum(a.sentences for a in rows) >= floor


def test_it_does_not_listen(audits):
    assert sum(a.asked_stated for a in audits[None]) / len(audits[None]) <= 0.45


def test_it_answers_by_itself_and_badly(captioner, questions):
    prompts = [captioner.encode(question, tentative_messages) for question in questions]
    texts = captioner.generate(prompts, 1, 12, temperature=None).texts
    right = defaultdict(list)
    for question, text in zip(questions, texts, strict=True):
        assert text == f" \\boxed{{ {extract_answer(text)}}}"
        right[question.category].append(extract_answer(text) == question.answer)
    assert 0.1 <= sum(map(sum, right.values())) / len(questions) <= 0.5
