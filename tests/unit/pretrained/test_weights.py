"""Captioners and reasoners are loaded whole, or not at all."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch

from racro_pl.policy.config import PolicySettings
from racro_pl.policy.loading import load_captioner, load_for_inference, probe_for_inference
from racro_pl.pretrained.weights import end_token_ids
from racro_pl.reward import InProcessReasoner
from racro_pl.reward.reasoner import ReasonerError
from racro_pl.types import RacroError

CPU = torch.device("cpu")


def captioner(folder):
    return load_for_inference(PolicySettings(path=str(folder), dtype="float32"), CPU)


def without_last_layer(tensors):
    return {name: tensor for name, tensor in tensors.items() if "layers.2." not in name or "visual" in name}


@pytest.mark.parametrize(
    ("tensors", "fields", "message"),
    [
        (without_last_layer, {}, r"missing from the files, e\.g\. model\.language_model\.layers\.2\..*deeper model"),
        (lambda w: {f"module.{name}": t for name, t in w.items()}, {}, "begin with 'module.' were saved from inside"),
        (lambda w: w | {"model.extra.weight": torch.ones(2)}, {}, "1 in the files but not in the model"),
        (
            lambda w: {n: torch.cat([t, t]) if "embed_tokens" in n else t for n, t in w.items()}, {},
            r"embed_tokens\.weight is \(1040, 128\) in the files and \(520, 128\) in the model.*vocab_size",
        ),
        (lambda w: w | {"model.language_model.layers.0.mlp.up_proj.qweight": torch.ones(2)}, {}, "AWQ, GPTQ"),
    ],
)  # fmt: skip
def test_a_captioner_with_other_tensors_is_refused_by_name(spoil, tensors, fields, message):
    folder = spoil("captioner", tensors, fields)
    with pytest.raises(RacroError, match=message):
        captioner(folder)


def test_a_lost_tie_is_told_in_training_too(spoil):
    folder = spoil("captioner")
    config = json.loads((folder / "config.json").read_text())
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = False
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(RacroError, match=r"lm_head\.weight.*lost tie_word_embeddings"):
        load_captioner(PolicySettings(path=str(folder), dtype="float32"), CPU)


def test_checkpoints_by_published_names_and_by_the_models_own_are_the_same(spoil):
    """transformers writes Qwen2.5-VL under the names that were published, which are not those of its modules."""

    def by_modules(tensors):
        renamed = {re.sub("^model[.]", "model.language_model.", name): tensor for name, tensor in tensors.items()}
        return {re.sub("^visual[.]", "model.visual.", name): tensor for name, tensor in renamed.items()}

    old, new = captioner(spoil("captioner")), captioner(spoil("captioner", by_modules))
    expected = new.model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in old.model.state_dict().items())


@pytest.mark.parametrize("name", ["reasoner", "reasoner-b"])
def test_a_reasoner_with_other_tensors_is_refused_by_name(spoil, name):
    folder = spoil(name, lambda w: {n: t for n, t in w.items() if "layers.3." not in n})
    with pytest.raises(ReasonerError, match=r"missing from the files, e\.g\. model\.layers\.3\."):
        InProcessReasoner(str(folder)).check()


def test_the_path_and_not_the_place_of_its_files_is_the_name_of_a_base(spoil):
    folder = spoil("captioner")
    trained = load_captioner(PolicySettings(path=str(folder), dtype="float32"), CPU)
    assert trained.model.peft_config["default"].base_model_name_or_path == str(folder)


def test_a_tokenizer_that_is_larger_than_the_embeddings(spoil):
    folder = spoil("reasoner-b", lambda w: {n: t[:500] if "embed_tokens" in n else t for n, t in w.items()},
                   {"vocab_size": 500})  # fmt: skip
    with pytest.raises(ReasonerError, match="tokenizer is larger than the model: .* there are 500 embeddings"):
        InProcessReasoner(str(folder)).check()


def test_a_template_is_needed_and_the_probe_says_so_before_weights_are_loaded(spoil):
    folder = spoil("captioner")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(RacroError, match=r"policy\.path .* has no chat template"):
        probe_for_inference(PolicySettings(path=str(folder)))


def test_the_probe_opens_the_weights_files(spoil):
    folder = spoil("captioner")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(RacroError, match="cut off"):
        probe_for_inference(PolicySettings(path=str(folder)))


def test_a_config_that_makes_no_model_is_one_line(spoil):
    with pytest.raises(RacroError, match="cannot load"):
        captioner(spoil("captioner", fields={"text_config": {"hidden_size": "wide"}}))
    with pytest.raises(ReasonerError, match="cannot load"):
        InProcessReasoner(str(spoil("reasoner-b", fields={"num_attention_heads": 0}))).check()


class Tokenizer:
    eos_token_id = 2

    def __len__(self):
        return 10


class Generation:
    def __init__(self, eos):
        self.eos_token_id = eos


@pytest.mark.parametrize(
    ("named", "ends"), [(None, {2}), (2, {2}), (5, {2, 5}), ([5, 6], {2, 5, 6}), ([], {2})]
)  # fmt: skip
def test_end_tokens_are_those_of_both_files(named, ends):
    assert end_token_ids(Generation(named), Tokenizer(), "m") == ends


@pytest.mark.parametrize("named", [10, -1, [2, 99], ["<eos>"]])
def test_an_end_token_that_does_not_exist_is_refused(named):
    with pytest.raises(RacroError, match="is not in the tokenizer"):
        end_token_ids(Generation(named), Tokenizer(), "m")


def test_a_captioner_may_write_its_tokenizers_end_token(spoil):
    """generation_config.json of a copy names another one alone: the tokenizer's own was then banned."""
    folder = spoil("captioner", fields={"eos_token_id": 0}, file="generation_config.json")
    loaded = captioner(folder)
    assert loaded.eos_ids == {0, 2}
    assert not loaded.banned[[0, 2]].any()


def test_a_folder_in_a_download_cache_is_looked_at_like_any_other(spoil, tmp_path):
    snapshot = tmp_path / "snapshots" / "abc"
    shutil.copytree(spoil("captioner"), snapshot)
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(RacroError, match="neither model.safetensors nor"):
        captioner(snapshot)


def test_no_bar_is_shown_for_a_model_that_is_loaded(spoil, capfd):
    from transformers.utils import logging

    logging.enable_progress_bar()
    captioner(spoil("captioner"))
    assert "Loading weights" not in capfd.readouterr().err
    assert logging.is_progress_bar_enabled()  # downloads have theirs
