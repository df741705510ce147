import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from racro_pl.reward.in_process import InProcessReasoner
from racro_pl.reward.local_model import LocalModel
from racro_pl.reward.reasoner import ReasonerError
from racro_pl.reward.seeded_sampling import sampler
from tests.fakes.models import small_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reasoner")
    tokenizer = small_tokenizer()
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.5,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
        )
    )  # fmt: skip
    # Settings that a folder may bring along and that must not leak into ours.
    model.generation_config.do_sample = True
    model.generation_config.top_k = 1
    model.generation_config.repetition_penalty = 3.0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def prompts(*texts):
    return [[{"role": "user", "content": text}] for text in texts]


def answers(reasoner, *texts):
    return [future.result().text for future in reasoner.submit(prompts(*texts))]


TEXTS = ("one", "a much longer prompt than the first", "two cats ?")


def test_a_batch_answers_like_its_rows_one_by_one(folder):
    together = InProcessReasoner(folder, temperature=0, max_new_tokens=8)
    alone = InProcessReasoner(folder, temperature=0, max_new_tokens=8, batch_size=1)
    assert answers(together, *TEXTS) == answers(alone, *TEXTS)
    assert len(set(answers(together, *TEXTS))) == 3


def test_greedy_answers_are_the_models_own_argmax(folder):
    reasoner = InProcessReasoner(folder, temperature=0, max_new_tokens=1)
    [answer] = answers(reasoner, "one")
    tokenizer, model = reasoner._model.tokenizer, reasoner._model.model
    text = tokenizer.apply_chat_template(prompts("one")[0], tokenize=False, add_generation_prompt=True)
    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    assert answer == tokenizer.decode(model(ids).logits[0, -1].argmax(), skip_special_tokens=True)


def test_answers_are_computed_in_their_own_dtype_by_a_step_under_autocast(folder):
    """``trainer.precision: bf16-mixed``: the step that waits for the answers computes them."""
    reasoner = InProcessReasoner(folder, temperature=0, max_new_tokens=2)
    reasoner.check()
    seen = set()
    hook = reasoner._model.model.model.layers[0].mlp.register_forward_hook(lambda *given: seen.add(given[-1].dtype))
    with hook, torch.autocast(reasoner._model.model.device.type, torch.bfloat16):
        answers(reasoner, "one")
    assert seen == {torch.float32}


def test_an_answer_that_would_fill_the_context_is_refused_at_the_start(folder):
    InProcessReasoner(folder, max_new_tokens=255).check()
    with pytest.raises(ReasonerError, match=r"context of 256 tokens: max_new_tokens=256 leaves no room .* lower it"):
        InProcessReasoner(folder, max_new_tokens=256).check()


@pytest.fixture
def sizes(monkeypatch):
    """How many prompts each batch held that a model generated for."""
    sizes = []
    generate = LocalModel.generate
    monkeypatch.setattr(
        LocalModel, "generate", lambda model, rows, *more: sizes.append(len(rows)) or generate(model, rows, *more)
    )
    return sizes


def test_nothing_runs_before_it_is_asked_for_and_then_everything_does(folder, sizes):
    reasoner = InProcessReasoner(folder, temperature=0, max_new_tokens=2)
    first, second = reasoner.submit(prompts("one")), reasoner.submit(prompts("two", "one"))
    assert reasoner._model is None
    assert not any(future.done() for future in first + second)
    second[0].result()
    assert all(future.done() for future in first + second)
    assert sizes == [2]  # equal prompts are computed once
    assert first[0].result() == second[1].result()
    assert reasoner.busy_seconds > 0


def test_a_greedy_reasoner_computes_no_answer_that_it_remembers(folder, sizes, monkeypatch):
    reasoner = InProcessReasoner(folder, temperature=0, max_new_tokens=2)
    monkeypatch.setattr("racro_pl.reward.in_process.REMEMBERED", 2)
    first = answers(reasoner, "one")
    assert answers(reasoner, "one", "two") == [*first, *answers(InProcessReasoner(folder, 0, 1, 2), "two")]
    assert sizes == [1, 1, 1]
    answers(reasoner, "three")  # and forgets "one"
    assert sizes == [1, 1, 1, 1]
    assert answers(reasoner, "two", "one")[1:] == first
    assert sizes == [1, 1, 1, 1, 1]
    reasoner.close()  # its weights may be other ones when it is loaded again
    answers(reasoner, "one", "two")
    assert sizes == [1, 1, 1, 1, 1, 2]


def test_sampling_follows_the_global_seed_and_answers_every_copy(folder):
    reasoner = InProcessReasoner(folder, temperature=1.0, max_new_tokens=8)
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        runs.append(answers(reasoner, "one", "one", "one", "one"))
    assert runs[0] == runs[1] != runs[2]
    assert len(set(runs[0])) > 1  # neither de-duplicated, nor held to the folder's own top_k=1


def seeded(reasoner, texts, seeds):
    return [future.result().text for future in reasoner.submit_seeded(prompts(*texts), seeds)]


@pytest.mark.parametrize("top_p", [1.0, 0.8])
def test_an_answer_follows_from_its_seed_whatever_else_is_in_the_batch(folder, top_p):
    settings = {"temperature": 1.0, "top_p": top_p, "max_new_tokens": 8}
    texts, seeds = [*TEXTS, "one"], [5, 6, 7, 8]
    together = seeded(InProcessReasoner(folder, **settings), texts, seeds)
    torch.manual_seed(99)  # the global stream has no part in it
    backwards = seeded(InProcessReasoner(folder, **settings), texts[::-1], seeds[::-1])
    alone = seeded(InProcessReasoner(folder, batch_size=1, **settings), texts, seeds)
    assert together == backwards[::-1] == alone
    assert together[0] != together[3]
    assert seeded(InProcessReasoner(folder, **settings), texts, [1, 2, 3, 4]) != together


@pytest.mark.parametrize("top_p", [1.0, 0.5])
def test_tokens_are_drawn_with_the_models_own_probabilities(top_p):
    """Four tokens, 4000 rows: a share's standard deviation is at most 0.008."""
    probabilities = torch.tensor([0.1, 0.4, 0.3, 0.2])
    scores = (probabilities.log() * 2).repeat(4000, 1)  # temperature 2 takes the factor back
    for process in sampler(range(4000), 2.0, top_p, 2):
        scores = process(None, scores)
    assert (scores == 0).sum(dim=1).eq(1).all()
    shares = scores.argmax(dim=1).bincount(minlength=4) / 4000
    # The top half: 0.4 alone is less than it, 0.4 and 0.3 are enough, in proportion 4 : 3.
    expected = probabilities if top_p == 1.0 else torch.tensor([0.0, 4 / 7, 3 / 7, 0.0])
    torch.testing.assert_close(shares, expected, atol=0.03, rtol=0)


def test_a_prompt_without_room_is_an_error_of_its_own(folder):
    reasoner = InProcessReasoner(folder, temperature=0, max_new_tokens=8)
    long, short = (future.result() for future in reasoner.submit(prompts("x " * 300, "one")))
    assert long.kind == "prompt too long"
    assert short.text is not None


def test_close_ends_what_is_queued_and_the_reasoner_can_be_used_again(folder):
    reasoner = InProcessReasoner(folder, temperature=0, max_new_tokens=2)
    [future] = reasoner.submit(prompts("one"))
    reasoner.close()
    assert future.result().kind == "closed"
    assert answers(reasoner, "one")


def test_a_folder_that_is_no_model(tmp_path):
    reasoner = InProcessReasoner(str(tmp_path))
    with pytest.raises(ReasonerError, match="the reasoner .* has no config.json"):
        reasoner.check()
    [future] = reasoner.submit(prompts("one"))
    with pytest.raises(ReasonerError, match="the reasoner .* has no config.json"):
        future.result()


def test_rebuilt_weights_have_another_identity(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"1")
    before = InProcessReasoner(str(tmp_path)).identity
    (tmp_path / "model.safetensors").write_bytes(b"22")
    assert InProcessReasoner(str(tmp_path)).identity != before


def test_identity_and_settings(folder):
    assert InProcessReasoner(folder).identity == InProcessReasoner(folder, batch_size=3).identity
    assert InProcessReasoner(folder).identity != InProcessReasoner(folder, temperature=0.5).identity
    for settings in (
        {"path": ""},
        {"temperature": -1},
        {"temperature": float("inf")},
        {"top_p": 2},
        {"max_new_tokens": 0},
        {"batch_size": 0},
        {"dtype": "int8"},
    ):
        with pytest.raises(ValueError, match="got .*, expected"):
            InProcessReasoner(**({"path": folder} | settings))
