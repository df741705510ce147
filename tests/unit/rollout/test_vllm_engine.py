"""Rollouts through a server that reads chats and images by itself: what is sent, what is checked, what goes wrong."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest
import torch

from racro_pl.policy.captioner import Captioner
from racro_pl.policy.config import LoraSettings, PolicySettings
from racro_pl.rollout import RunInfo, VllmEngine
from racro_pl.rollout.vllm.protocol import BAN, RolloutError, processed_images
from racro_pl.serving.calls import ServerCalls
from tests.fakes.models import save_small_model
from tests.fakes.rollout_server import FakeVllm
from tests.helpers.tolerance import LOGPROBS, NATS, assert_equal
from tests.unit.policy.conftest import FAMILIES, QUESTIONS, build


def serve(folder: Path, fault: str = "", **options: object) -> FakeVllm:
    # Image limits as the run's own server gets them: nothing is too small for it.
    # It stands for another process, with kernels of its own, and answers in threads: never on this one's card.
    return FakeVllm(build(folder, torch.device("cpu"), min_pixels=1), fault, **options)  # type: ignore[arg-type]


def open_engine(
    url: str, folder: Path, root: Path, rank: int = 0, run_id: str = "run", ranks: int = 2, **options: object
) -> VllmEngine:
    settings = {"group_size": 3, "max_new_tokens": 6, "canary_questions": 2, "deadline_s": 100.0, "attempts": 2}
    engine = VllmEngine(url=url, **(settings | options))  # type: ignore[arg-type]
    policy = PolicySettings(path=str(folder), lora=LoraSettings(4, 8), min_pixels=3136, max_pixels=16384)
    engine.open(RunInfo(policy, root, run_id, rank, ranks))
    return engine


def change_adapter(captioner: Captioner, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in captioner.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.empty(parameter.shape).normal_(0.0, 0.3, generator=generator))


def encoded(captioner: Captioner) -> list:
    return [(question, captioner.encode(question)) for question in QUESTIONS]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_images_sent_are_the_images_processed(family, tmp_path):
    """Taken back out of the patches, an image makes the same patches again: bit for bit."""
    captioner = build(save_small_model(tmp_path, family))
    processor = captioner.encoder.processor.image_processor
    for question in QUESTIONS:
        prompt = captioner.encode(question)
        images = processed_images(prompt, processor)
        assert len(images) == len(question.images)
        if images:
            again = processor(images=images, return_tensors="pt")
            assert torch.equal(again["image_grid_thw"], prompt.vision["image_grid_thw"])
            assert torch.equal(again["pixel_values"], prompt.pixel_values)


@pytest.mark.parametrize("family", FAMILIES)
def test_groups_come_in_order_with_the_samplers_log_probs(family, tmp_path):
    folder = save_small_model(tmp_path / "model", family)
    captioner = build(folder)
    with serve(folder) as server:
        engine = open_engine(server.url, folder, tmp_path, temperature=0.8)
        rollouts = list(engine.sample(captioner, encoded(captioner), adapter_version=7))
        engine.close()
    assert [rollout.question.id for rollout in rollouts] == [question.id for question in QUESTIONS]
    for rollout in rollouts:
        assert len(rollout.texts) == len(rollout.truncated) == len(rollout.token_ids) == 3
        assert rollout.adapter_version == 7
        assert not captioner.banned[rollout.token_ids[rollout.mask]].any()
        own = captioner.frozen_logprobs(
            [rollout.prompt], torch.zeros(3, dtype=torch.long), rollout.token_ids, rollout.mask, 0.8, reference=False
        )
        assert_equal(rollout.sampler_logprobs[rollout.mask], own[rollout.mask], LOGPROBS)
    assert engine.metrics()["canary_gap"] < NATS


def test_a_request_asks_for_the_whole_distribution(folder, captioner, tmp_path):
    """Importance weights are wrong under top_p or top_k; a model folder's own settings may not slip in either."""
    with serve(folder) as server:
        engine = open_engine(server.url, folder, tmp_path, temperature=0.7)
        list(engine.sample(captioner, encoded(captioner)[:1], 0))
        engine.close()
    request = server.chats[-1]
    assert {name: request[name] for name in (
        "n", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty",
        "logprobs", "return_token_ids",
    )} == {
        "n": 3, "temperature": 0.7, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0,
        "presence_penalty": 0.0, "frequency_penalty": 0.0, "logprobs": True, "return_token_ids": True,
    }  # fmt: skip
    assert request["logit_bias"] == {str(token): BAN for token in captioner.banned.nonzero()[:, 0].tolist()}
    assert request["stop_token_ids"] == sorted(captioner.eos_ids)


def test_one_version_is_loaded_at_a_time_and_nothing_is_left_behind(folder, captioner, tmp_path):
    with serve(folder) as server:
        engine = open_engine(server.url, folder, tmp_path)
        questions = encoded(captioner)[:2]
        texts = []
        for version in (0, 1, 1, 2):
            change_adapter(captioner, version)
            texts.append(engine.caption_greedily(captioner, questions, version))
        names = [f"racro-run-{version}" for version in (0, 1, 2)]
        assert [path.name for path in (tmp_path / "rollout_adapters").iterdir()] == [names[2]]
        assert list(server.adapters) == [names[2]]
        engine.close()
    zero, one, two = names
    assert server.log == [f"load {zero}", f"load {one}", f"unload {zero}", f"load {two}", f"unload {one}",
                          f"unload {two}"]  # fmt: skip
    assert not (tmp_path / "rollout_adapters").exists()
    assert texts[1] == texts[2]
    # Greedy: what the trainer itself writes with the adapter of that version.
    own = captioner.generate([prompt for _, prompt in questions], 1, 6, temperature=None)
    assert texts[3] == list(own.texts)
    assert texts[0] != texts[3]


def test_an_adapter_that_was_loaded_though_the_answer_was_lost_is_not_an_error(folder, captioner, tmp_path):
    with serve(folder) as server:
        answers, route = [], server.route

        def lossy(path, body):
            answer = route(path, body)
            if path.endswith("/load_lora_adapter"):
                answers.append(answer[0])
                return answer if len(answers) > 1 else (502, {"error": {"message": "lost on its way"}})
            return answer

        server.route = lossy
        engine = open_engine(server.url, folder, tmp_path)
        assert len(engine.caption_greedily(captioner, encoded(captioner)[:1], 0)) == 1
        engine.close()
    assert answers == [200, 400]  # loaded, and already loaded


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            "other prompt",
            r"another prompt than the trainer: (\d+) tokens instead of \1, the first difference at 7: exp",
        ),
        ("other model", "sampled from 'base', not from the adapter 'racro-run-0'"),
        ("no lora", r"did not load the adapter \(HTTP 404: Not Found\): .*--enable-lora.*RUNTIME_LORA_UPDATING=1"),
        ("banned", "sampled the banned tokens"),
        ("cut ids", r"wrong choices\[2\]\.logprobs\.content: \d entries; expected \d, each token with its log-prob"),
        ("no ids", "has no choices\[2\]\.token_ids: expected vLLM's chat completions with return_token_ids"),
        ("wrong end", "ended a caption with '(stop|length)' after token"),
        ("500", r"sampled no captions for question wide \(HTTP 500: told to fail \(attempt 2\)\)"),
        ("hang", r"sampled no captions for question wide \(timeout: no complete answer within 2 s"),
    ],
)
def test_what_the_server_does_wrong_is_told(folder, captioner, tmp_path, fault, message):
    with serve(folder, fault) as server:
        engine = open_engine(server.url, folder, tmp_path)
        if fault == "hang":  # now: what it was asked before may take a busy machine longer
            engine._calls.client._attempt_s, engine._calls.client._attempts = 2.0, 1
        with pytest.raises(RolloutError, match=re.compile(message, re.DOTALL)):
            list(engine.sample(captioner, encoded(captioner), 0))
        engine.close()


def test_a_server_with_other_image_limits_is_caught_by_the_prompts_ids(folder, captioner, tmp_path):
    with FakeVllm(build(folder, torch.device("cpu"), min_pixels=56 * 56, max_pixels=56 * 56)) as server:
        engine = open_engine(server.url, folder, tmp_path)
        with pytest.raises(RolloutError, match=r"another prompt .*(?s:.)*min_pixels at most, and max_pixels at least"):
            list(engine.sample(captioner, encoded(captioner), 0))
        engine.close()


def test_the_canary_stops_a_run_whose_adapter_has_no_effect(folder, captioner, tmp_path):
    """The server takes the adapter and samples without it: its log-probs are those of other weights."""
    with serve(folder, "deaf") as server:
        engine = open_engine(server.url, folder, tmp_path)
        change_adapter(captioner, 5)
        with pytest.raises(RolloutError, match=r"canary: .* within canary_threshold=0\.05"):
            list(engine.sample(captioner, encoded(captioner), 0))
        engine.close()
    assert engine.metrics()["canary_gap"] > 0.05


def test_the_canary_sees_an_ignored_adapter_below_the_threshold_too(folder, captioner, tmp_path):
    """A small adapter that is not applied: no large difference, but the base explains it better than the policy."""
    with serve(folder, "deaf") as server:
        for model in (captioner, server.captioner):
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if "lora_B" in name:
                        parameter.fill_(1e-3 if model is captioner else 0.0)
        engine = open_engine(server.url, folder, tmp_path, canary_threshold=1.0)
        with pytest.raises(RolloutError, match="expected them nearer to the trainer's"):
            list(engine.sample(captioner, encoded(captioner), 0))
        engine.close()
    assert engine.metrics()["canary_base_gap"] < NATS < engine.metrics()["canary_gap"] < 0.05


def test_the_canary_comes_at_the_start_after_the_first_update_and_every_nth_push(folder, captioner, tmp_path):
    with serve(folder) as server:
        engine = open_engine(server.url, folder, tmp_path, canary_every=3)
        asked = []
        for version in range(7):
            before = len(server.chats)
            list(engine.sample(captioner, encoded(captioner)[:2], version))
            asked.append(len(server.chats) - before)
        engine.close()
    # Two questions a step, and two more with a canary: pushes 1, 2, 4 and 7.
    assert asked == [4, 4, 2, 4, 2, 2, 4]


def test_other_ranks_use_what_rank_zero_has_pushed(folder, captioner, tmp_path):
    with serve(folder) as server:
        first = open_engine(server.url, folder, tmp_path)
        second = open_engine(server.url, folder, tmp_path, rank=1, deadline_s=1.0)
        with pytest.raises(RolloutError, match="rank 0 has not loaded the adapter 'racro-run-0'"):
            second.caption_greedily(captioner, encoded(captioner)[:1], 0)
        second._calls.deadline_s = 100.0
        texts = first.caption_greedily(captioner, encoded(captioner)[:1], 0)
        assert second.caption_greedily(captioner, encoded(captioner)[:1], 0) == texts
        second.close()
        first.close()
    assert server.log == ["load racro-run-0", "unload racro-run-0"]


def test_no_server_is_told(folder, tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        with pytest.raises(RolloutError, match=r"no rollout server at .*: start vLLM there, or correct"):
            open_engine(url, folder, tmp_path)


def test_a_context_without_room_for_a_caption_is_refused(folder, tmp_path):
    with serve(folder, context=6) as server, pytest.raises(RolloutError, match="context of 6 tokens leaves no room"):
        open_engine(server.url, folder, tmp_path)


@pytest.mark.parametrize("entry", [None, "base", {"id": None}, {"id": 3}, {"id": "base", "max_model_len": "4096"}])
def test_a_list_of_models_that_is_none_is_told(folder, tmp_path, monkeypatch, entry):
    with serve(folder) as server:
        monkeypatch.setattr(ServerCalls, "call", lambda *_, **__: {"data": [entry]})
        with pytest.raises(RolloutError, match="/models is not a list of models"):
            open_engine(server.url, folder, tmp_path)


def test_log_probs_of_another_distribution_are_refused_at_start(folder, tmp_path):
    """vLLM's default tells them before temperature and bias."""
    with (
        serve(folder, "raw log-probs") as server,
        pytest.raises(RolloutError, match=r"expected 0\. Start it with --logprobs-mode processed_logprobs"),
    ):
        open_engine(server.url, folder, tmp_path)
    assert server.log == []


def test_a_server_sleeps_whenever_nothing_is_sampled(folder, captioner, tmp_path):
    with serve(folder) as server:
        engine = open_engine(server.url, folder, tmp_path, sleep=True, ranks=1)
        assert engine.placement == "same_device"  # nothing may be computed beside it
        assert server.asleep
        for version in (0, 1):
            for _ in engine.sample(captioner, encoded(captioner)[:2], version):
                assert not server.asleep
            assert server.asleep
        engine.caption_greedily(captioner, encoded(captioner)[:1], 1)
        engine.close()
        assert not server.asleep
    assert server.log == ["sleep", "wake", "load racro-run-0", "sleep", "wake", "load racro-run-1",
                          "unload racro-run-0", "sleep", "wake", "sleep", "wake", "unload racro-run-1"]  # fmt: skip


def test_a_server_wakes_to_memory_that_the_trainer_has_given_back(folder, captioner, tmp_path, monkeypatch):
    with serve(folder) as server:
        engine = open_engine(server.url, folder, tmp_path, sleep=True, ranks=1)
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: server.log.append("given back"))
        engine.caption_greedily(captioner, encoded(captioner)[:1], 0)
        engine.close()
    wakings = [place for place, what in enumerate(server.log) if what == "wake"]
    assert len(wakings) == 2
    assert [server.log[place - 1] for place in wakings] == ["given back", "given back"]


def test_a_server_that_cannot_sleep_is_refused_at_start(folder, tmp_path):
    with serve(folder, "no sleep") as server:
        with pytest.raises(
            RolloutError, match="--enable-sleep-mode and the environment variable VLLM_SERVER_DEV_MODE=1"
        ):
            open_engine(server.url, folder, tmp_path, sleep=True, ranks=1)
        with pytest.raises(RolloutError, match="sleep: true is for one device; 2 share this server"):
            open_engine(server.url, folder, tmp_path, sleep=True)
