"""The shipped reasoners, loaded as users load them: they read, are not fooled, and fall back on a tentative answer."""

import random
from collections import Counter

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from racro_pl.figure_world.models import resolve_model
from racro_pl.figure_world.world import SHAPES, TYPES, VALUES, figure_questions
from racro_pl.text.answers import extract_answer
from racro_pl.text.reasoner_prompt import joint_messages, reasoner_messages

REASONERS = ("figure-reasoner", "figure-reasoner-b")
# Of all traps together, and of one kind. Training asks the first alone: what fools it would be learnt for the reward.
MOST_FOOLED = {"figure-reasoner": (0.03, 0.1), "figure-reasoner-b": (0.06, 0.35)}


def messages(key, caption, tentative=None):
    question = f"what is the {key} ?"
    return reasoner_messages(question, caption) if tentative is None else joint_messages(question, caption, tentative)


# The second is the first in another architecture; the quickstart learns from the first.
@pytest.fixture(scope="module", params=[REASONERS[0], pytest.param(REASONERS[1], marks=pytest.mark.slow)])
def ask(request):
    """Greedy answers of a reasoner to (key, caption) pairs and (key, caption, tentative) triples."""
    folder = resolve_model(f"embedded:{request.param}")
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def answers(asked):
        found = []
        for start in range(0, len(asked), 128):
            texts = [
                tokenizer.apply_chat_template(messages(*one), tokenize=False, add_generation_prompt=True)
                for one in asked[start : start + 128]
            ]
            inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
            with torch.no_grad():
                output = model.generate(
                    input_ids=inputs["input_ids"],
                    attention_mask=inputs["attention_mask"],
                    max_new_tokens=8,
                    do_sample=False,
                )
            replies = tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            found += [extract_answer(reply) for reply in replies]
        return found

    answers.reasoner = request.param
    return answers


def cases(seed, count):
    """Per scene: key, true value, and shuffled true sentences about other keys."""
    rng = random.Random(seed)
    for question in figure_questions("test", count, seed=seed):
        facts, key = question.metadata["facts"], question.metadata["key"]
        others = [f"{other} {value} ." for other, value in facts.items() if other != key]
        rng.shuffle(others)
        yield rng, key, facts[key], others[: rng.randrange(4)]


def shuffled(rng, *sentences):
    return " ".join(rng.sample(sentences, len(sentences)))


def test_reasoner_reads_what_a_caption_states(ask):
    pairs, truth = [], []
    for rng, key, value, others in cases(seed=11, count=60):
        fact = f"{key} {value} ."
        pairs += [(key, fact), (key, shuffled(rng, fact, *others)), (key, shuffled(rng, fact, fact, *others))]
        truth += [value] * 3
    right = [answer == value for answer, value in zip(ask(pairs), truth, strict=True)]
    assert sum(right) / len(right) >= 0.98


def traps(rng, key, value):
    """Captions, by name, that do not state the asked fact though they come near."""
    kind, _, thing = key.split()
    shape = rng.choice([shape for shape in SHAPES if shape != thing])
    attribute = rng.choice([name for name in TYPES if name != kind])
    foreign = rng.choice([v for name in TYPES if name != kind for v in VALUES[name]])
    rival = rng.choice([v for v in VALUES[kind] if v != value])
    return {
        "other attribute": f"{attribute} of {thing} {value} .",
        "other figure": f"{kind} of {shape} {value} .",
        "value of another attribute": f"{key} {foreign} .",
        "bare word": value,
        "bare sentence": f"{value} .",
        "bare words": f"{value} " * rng.randrange(2, 7),
        "figure and value": f"{thing} {value} .",
        "no preposition": f"{kind} {thing} {value} .",
        "value first": f"{value} {key} .",
        "cut off": key,
        "torn": f"{key} . {value} .",
        "one word too many": f"{key} {shape} {value} .",
        "boxed": f"\\boxed{{ {value}}}",
        "key and box": f"{key} \\boxed{{ {value}}} .",
        "contradiction": f"{key} {value} . {key} {rival} .",
    }


def test_reasoner_does_not_guess(ask):
    pairs = []
    for rng, key, _, others in cases(seed=12, count=120):
        pairs.append((key, shuffled(rng, *others)))
    refused = [answer == "unknown" for answer in ask(pairs)]
    assert sum(refused) / len(refused) >= 0.97


def test_reasoner_is_not_fooled(ask):
    names, pairs = [], []
    for rng, key, value, others in cases(seed=13, count=40):
        for name, trap in traps(rng, key, value).items():
            names.append(name)
            pairs.append((key, shuffled(rng, trap, *others)))
    fooled = Counter(name for name, answer in zip(names, ask(pairs), strict=True) if answer != "unknown")
    of_all, of_one_kind = MOST_FOOLED[ask.reasoner]
    assert sum(fooled.values()) / len(pairs) <= of_all, fooled
    assert max(fooled.values(), default=0) / 40 <= of_one_kind, fooled


def boxed(key, value):
    return f" {key} \\boxed{{ {value}}}"


def rival_of(rng, key, value):
    return rng.choice([candidate for candidate in VALUES[key.split()[0]] if candidate != value])


def test_what_the_caption_states_wins_over_the_tentative_answer(ask):
    asked, truth = [], []
    for rng, key, value, others in cases(seed=14, count=120):
        caption = shuffled(rng, f"{key} {value} .", *others)
        asked.append((key, caption, boxed(key, rival_of(rng, key, value))))
        truth.append(value)
    right = [answer == value for answer, value in zip(ask(asked), truth, strict=True)]
    assert sum(right) / len(right) >= 0.93


def test_the_tentative_answer_counts_where_the_caption_is_silent(ask):
    asked, given = [], []
    for rng, key, value, others in cases(seed=15, count=120):
        asked.append((key, shuffled(rng, *others), boxed(key, value)))
        given.append(value)
    repeated = [answer == value for answer, value in zip(ask(asked), given, strict=True)]
    assert sum(repeated) / len(repeated) >= 0.97


def test_traps_do_not_outweigh_the_tentative_answer(ask):
    names, asked, given = [], [], []
    for rng, key, value, others in cases(seed=16, count=40):
        for name, trap in traps(rng, key, value).items():
            tentative = rival_of(rng, key, value)
            names.append(name)
            asked.append((key, shuffled(rng, trap, *others), boxed(key, tentative)))
            given.append(tentative)
    wrong = Counter(name for name, a, b in zip(names, ask(asked), given, strict=True) if a != b)
    assert sum(wrong.values()) / len(asked) <= 0.05, wrong


def test_a_tentative_answer_that_cannot_be_is_not_repeated(ask):
    asked = []
    for rng, key, _, others in cases(seed=17, count=120):
        foreign = rng.choice([v for name in TYPES if not key.startswith(name) for v in VALUES[name]])
        asked.append((key, shuffled(rng, *others), rng.choice((boxed(key, foreign), boxed(key, "unknown"), ""))))
    refused = [answer == "unknown" for answer in ask(asked)]
    assert sum(refused) / len(refused) >= 0.95


def test_the_reasoners_are_of_different_architectures():
    kinds = {AutoConfig.from_pretrained(resolve_model(f"embedded:{name}")).model_type for name in REASONERS}
    assert len(kinds) == len(REASONERS)
