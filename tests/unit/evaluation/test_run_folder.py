import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from racro_pl.commands.test import _source
from racro_pl.data.benchmarks.loading import BenchmarkSettings, load_benchmarks
from racro_pl.evaluation.run_folder import FILE, Identities, open_run
from racro_pl.figure_world.world import figure_questions
from racro_pl.types import RacroError


def ids(captioner="w1", reasoner="r1", **more):
    return Identities({"figures": "here"}, {"after": captioner}, {"r": reasoner, **more})


def test_the_same_evaluation_goes_on_in_its_folder(tmp_path):
    folder, found = open_run(tmp_path, "e", ids(), fresh=False)
    assert (folder.name, found) == ("version_0", False)
    assert open_run(tmp_path, "e", ids(), fresh=False) == (folder, True)


def test_another_reasoner_joins_and_the_earlier_one_is_remembered(tmp_path):
    folder, _ = open_run(tmp_path, "e", ids(), fresh=False)
    other = Identities({"figures": "here"}, {"after": "w1"}, {"s": "r2"})
    assert open_run(tmp_path, "e", other, fresh=False) == (folder, True)
    # "r" meant r1 in this folder, though the last evaluation did not use it.
    assert open_run(tmp_path, "e", ids(reasoner="r9"), fresh=False)[1] is False


@pytest.mark.parametrize(
    "changed", [ids(captioner="w2"), ids(reasoner="r2"), Identities({"figures": "there"}, {"after": "w1"}, {}),
                Identities({"figures": "here"}, {"somebody else": "w1"}, {"r": "r1"})],
)  # fmt: skip
def test_a_name_that_means_something_else_starts_anew(tmp_path, changed):
    open_run(tmp_path, "e", ids(), fresh=False)
    folder, found = open_run(tmp_path, "e", changed, fresh=False)
    assert (folder.name, found) == ("version_1", False)


def test_fresh_starts_anew(tmp_path):
    open_run(tmp_path, "e", ids(), fresh=False)
    assert open_run(tmp_path, "e", ids(), fresh=True)[0].name == "version_1"


def test_a_broken_file_is_told(tmp_path):
    folder, _ = open_run(tmp_path, "e", ids(), fresh=False)
    (folder / FILE).write_text("{")
    with pytest.raises(RacroError, match="cannot be read"):
        open_run(tmp_path, "e", ids(), fresh=False)


def test_a_changed_file_in_a_folder_is_another_source_and_earlier_notes_of_folders_hold(tmp_path):
    (figure,) = figure_questions("test", 1)
    rows = {"question": [figure.text], "answer": [figure.answer], "image": [figure.images[0].data]}
    pq.write_table(pa.table(rows), tmp_path / "test-1.parquet")

    def noted() -> str:
        (loaded,) = load_benchmarks([BenchmarkSettings("own", str(tmp_path))])
        return _source(loaded)

    before = noted()
    assert noted() == before
    open_run(tmp_path / "runs", "e", Identities({"own": f"{tmp_path} default"}, {"after": "w1"}, {}), fresh=False)
    assert open_run(tmp_path / "runs", "e", Identities({"own": before}, {"after": "w1"}, {}), fresh=False)[1]
    pq.write_table(pa.table(rows), tmp_path / "test-2.parquet")
    assert not open_run(tmp_path / "runs", "e", Identities({"own": noted()}, {"after": "w1"}, {}), fresh=False)[1]
    os.utime(tmp_path / "test-1.parquet", ns=(1, 1))
    assert noted() != before
    assert not open_run(tmp_path / "runs", "e", Identities({"own": noted()}, {"after": "w1"}, {}), fresh=False)[1]
