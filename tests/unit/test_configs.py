"""The configurations that ship: their parts can be built, and they say the memory that their settings give."""

from __future__ import annotations

import re
import runpy
import sys
from importlib import import_module
from pathlib import Path

import pytest

from racro_pl.commands.lightning import parts_of

ROOT = Path(__file__).parents[2]
# The layers of configs/experiment make a configuration together only: tests/integration/test_recipes.py.
FOR_FIT = [
    path
    for path in sorted(ROOT.glob("configs/**/*.yaml"))
    if not path.name.startswith("test_") and path.parents[1] != ROOT / "configs/experiment"
]
CARDS = sorted(ROOT.glob("configs/cards/*.yaml"))


@pytest.mark.parametrize("path", FOR_FIT, ids=lambda path: path.name)
def test_the_parts_of_a_configuration_can_be_built(path):
    module, data = parts_of(str(path))
    assert module.engine.group_size >= 2
    assert data.questions_per_step >= 1


def test_every_class_path_that_is_written_down_leads_to_one_of_five_places():
    pages = [ROOT / "README.md", *ROOT.glob("configs/**/*.yaml"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/*.ipynb")]
    written = re.compile(r"""class_path\\?["']?: *\\?["']?racro_pl\.([\w.]+)\.(\w+)""")
    found = {match for page in pages for match in written.findall(page.read_text(encoding="utf-8"))}
    assert {module for module, _ in found} == {"data", "rollout", "reward", "callbacks"}
    for module, name in found:
        assert isinstance(getattr(import_module(f"racro_pl.{module}"), name), type)


def test_there_is_a_configuration_for_every_class_of_cards():
    sizes = {path.name.split("_")[0] for path in CARDS}
    assert sizes == {"12gb", "16gb", "24gb"}


def test_the_ledgers_in_the_configurations_are_what_the_settings_give():
    script = runpy.run_path(str(ROOT / "scripts/card_ledgers.py"))
    assert len(CARDS) == 10
    for path in CARDS:
        assert script["with_block"](path) == path.read_text(encoding="utf-8"), f"run scripts/card_ledgers.py: {path}"
        assert script["FIRST"] in path.read_text(encoding="utf-8")


def test_a_stale_ledger_is_found_and_one_too_large_refused(tmp_path, monkeypatch):
    script = runpy.run_path(str(ROOT / "scripts/card_ledgers.py"))
    text = (ROOT / "configs/cards/12gb_3b_shared.yaml").read_text()
    longer = tmp_path / "12gb_3b_shared.yaml"
    longer.write_text(text.replace("max_new_tokens: 512", "max_new_tokens: 640"))
    assert script["with_block"](longer) != longer.read_text()
    longer.write_text(text.replace("7B", "3B").replace("quantization: nf4", "quantization: none"))
    with pytest.raises(ValueError, match="do not fit into 12"):
        script["with_block"](longer)


def test_the_script_says_what_it_checks(monkeypatch, capsys, tmp_path):
    main = runpy.run_path(str(ROOT / "scripts/card_ledgers.py"))["main"]
    text = (ROOT / "configs/cards/12gb_3b.yaml").read_text()
    (tmp_path / "12gb_3b.yaml").write_text(text)
    monkeypatch.setitem(main.__globals__, "CARDS", tmp_path)  # one: all of them are compared above
    monkeypatch.setattr(sys, "argv", ["card_ledgers.py", "--check"])
    assert main() == 0
    assert capsys.readouterr().out == ""
    (tmp_path / "12gb_3b.yaml").write_text(text.replace("max_new_tokens: 1024", "max_new_tokens: 512"))
    assert main() == 1
    assert capsys.readouterr().out == "12gb_3b.yaml: not what its settings give\n"
