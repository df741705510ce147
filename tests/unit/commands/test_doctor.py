import re
from pathlib import Path

import pytest
import torch
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLModel

from racro_pl.commands import doctor
from racro_pl.commands.lightning import parts_of
from racro_pl.types import RacroError
from tests.fakes.reasoner_server import FaultServer
from tests.helpers.families import save_small_family

ROOT = Path(__file__).parents[3]


def test_a_good_configuration_passes(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    assert doctor.main(["--config", str(ROOT / "configs/quickstart.yaml")]) == 0
    printed = capsys.readouterr().out
    assert "0 failed" in printed
    assert "4000 questions" in printed
    assert "NF4 works" in printed
    assert "it sees (other pixels change log-probs by up to" in " ".join(printed.split())
    assert "kept activations" in printed


@pytest.mark.usefixtures("quick_refusal")
def test_every_fault_is_told_with_what_to_do_and_fails_the_command(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    config = ROOT / "configs/own_data_vllm.yaml"
    with FaultServer(listing="404") as server:
        code = doctor.main(["--config", str(config), "--captioner", "runs/none", "--reasoner", server.url])
    printed = " ".join(capsys.readouterr().out.split())
    assert code == 1
    assert "has it been trained yet" in printed
    assert "is this the base URL of an OpenAI-compatible server" in printed
    assert "data file not found" in printed


def test_a_server_that_answers(capsys):
    with FaultServer() as server:
        assert doctor.main(["--reasoner", server.url]) == 0
    assert "tiny answers at" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("content", ["- a list", "model: {}", ": ["])
def test_a_file_that_is_no_configuration(tmp_path, content, capsys):
    file = tmp_path / "config.yaml"
    file.write_text(content)
    assert doctor.main(["--config", str(file)]) == 1
    assert "is not a configuration of fit" in " ".join(capsys.readouterr().out.split())


def test_a_captioner_is_loaded_whole_and_has_to_see(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert doctor.main(["--captioner", "embedded:figure-captioner"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "it sees" in printed
    assert re.search(r"family qwen2_5_vl, shared prefix \S+ nats from the plain forward; 21 layers to adapt", printed)
    # Between the pixel limits of the figures, 512 x 512 and 2,048 x 2,048: 28 x 28 pixels a token.
    assert re.search(r"image tokens: \d+ \(256x256\), \d+ \(1024x768\), \d+ \(2048x1024\)", printed)

    forward = Qwen2_5_VLModel.forward

    def blind(self, input_ids=None, position_ids=None, mm_encoder_outputs=None, pixel_values=None, **kwargs):
        return forward(self, input_ids=input_ids, position_ids=position_ids, **kwargs)

    monkeypatch.setattr(Qwen2_5_VLModel, "forward", blind)
    assert doctor.main(["--captioner", "embedded:figure-captioner"]) == 1
    assert "the captioner does not see" in " ".join(capsys.readouterr().out.split())


def test_a_captioner_that_nobody_described_is_on_the_plain_path(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "400")
    assert doctor.main(["--captioner", str(save_small_family(tmp_path, "vipllava"))]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "it sees" in printed
    assert "family vipllava, on the plain path: the model type 'vipllava' is not described in docs/models.md" in printed


def test_a_captioner_larger_than_memory_is_not_loaded(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("racro_pl.commands.sight._free_bytes", lambda device: 1000)
    assert doctor.main(["--captioner", "embedded:figure-captioner"]) == 0
    assert "whether it sees was not tried" in " ".join(capsys.readouterr().out.split())


def test_compromised_releases_fail(monkeypatch):
    monkeypatch.setattr(doctor.importlib.metadata, "version", lambda name: "2.6.2")
    found = {finding.what: finding.status for finding in doctor.check_packages()}
    assert found["lightning"] == "fail"
    assert found["torch"] == "ok"


def test_a_check_that_breaks_is_a_finding():
    def broken():
        raise RacroError("got this, do that")

    finding = doctor.attempt("thing", broken)
    assert (finding.status, finding.advice) == ("fail", "got this, do that")


def test_an_error_without_a_word_is_a_finding_too():
    def broken():
        raise RuntimeError("\n")

    assert doctor.attempt("thing", broken) == doctor.Finding("thing", "fail", "RuntimeError", "RuntimeError")


def test_a_configuration_too_large_for_the_card_is_told_with_what_to_change(monkeypatch):
    module, data = parts_of(str(ROOT / "configs/quickstart.yaml"))
    module.policy_settings.path = "Qwen/Qwen2.5-VL-7B-Instruct"
    assert doctor.check_memory(module, data).status == "ok"  # no card here to compare with
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda index: (24 * 2**30, 24 * 2**30))
    finding = doctor.check_memory(module, data)
    assert finding.status == "warn"
    assert "model.policy.quantization: nf4" in finding.advice
    assert any(line.startswith("weights") for line in finding.details)


def test_a_card_that_cannot_be_asked_is_a_line_of_the_table(monkeypatch):
    """Asking takes memory of the card itself, and a card may belong to another process alone."""

    def full(index):
        raise torch.OutOfMemoryError("CUDA error: out of memory\nsecond line")

    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.mem_get_info", full)
    card, _ = doctor.check_devices()
    assert (card.what, card.status, card.found) == ("gpu 0", "fail", "CUDA error: out of memory")
    module, data = parts_of(str(ROOT / "configs/quickstart.yaml"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    finding = doctor.check_memory(module, data)
    assert finding.status == "fail"
    assert "out of memory" in finding.found
