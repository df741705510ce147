import pytest

from racro_pl.evaluation.run_folder import FILE, Identities, open_run
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
