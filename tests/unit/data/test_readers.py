"""What holds for all readers: cheap to import, made from a config."""

from __future__ import annotations

import subprocess
import sys

import pytest
from jsonargparse import ArgumentParser

from racro_pl.data import FigureWorldReader, JsonlReader, ViRL39KReader
from racro_pl.data.datamodule import RacroDataModule


def test_readers_import_without_torch_and_lightning():
    heavy = {"torch", "lightning", "transformers", "pyarrow"}
    code = f"import sys, racro_pl.data; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (FigureWorldReader, {"train": 8}),
        (JsonlReader, {"path": "a.jsonl", "validation_share": 0.1}),
        (ViRL39KReader, {"root": "folder"}),
    ],
)
def test_a_reader_is_named_by_its_class_in_the_config(kind, arguments):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(RacroDataModule, "data")
    reader = {"class_path": f"racro_pl.data.{kind.__name__}", "init_args": arguments}
    config = parser.parse_object({"data": {"reader": reader, "questions_per_step": 4}})
    data = parser.instantiate_classes(config).data
    assert type(data.reader) is kind
    assert data.questions_per_step == 4
