import pytest

from racro_pl.data.benchmarks.loading import BenchmarkSettings
from racro_pl.evaluation.settings import CaptionerSettings, EvaluationSettings, ReasonerSettings
from racro_pl.reward import HttpReasoner, InProcessReasoner
from racro_pl.types import RacroError

RUNS = "before=embedded:figure-captioner, runs/quickstart"


def test_texts_with_commas_name_and_place_everything():
    settings = EvaluationSettings(
        "figures, mathvision=/data/MathVision.tsv", RUNS, "http://localhost:8000/a=b/v1,small=embedded:figure-reasoner"
    ).plan()
    assert settings.benchmarks == [
        BenchmarkSettings("figures"),
        BenchmarkSettings("mathvision", "/data/MathVision.tsv"),
    ]
    assert [(entry.name, entry.path) for entry in settings.captioners] == [
        ("before", "embedded:figure-captioner"),
        ("quickstart", "runs/quickstart"),
    ]
    server, small = settings.reasoners
    # The paper's sampling; an equals sign inside a URL makes no name.
    assert isinstance(server.reasoner, HttpReasoner)
    assert server.reasoner.url == "http://localhost:8000/a=b/v1"
    assert server.reasoner.sampling == {"temperature": 0.6, "top_p": 0.95, "max_tokens": 8192}
    assert isinstance(small.reasoner, InProcessReasoner)
    assert (small.name, small.reasoner.deterministic) == ("small", True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"captioners": "runs/a/adapter,other/a"}, "'a' is there twice"),
        ({"captioners": ""}, "captioners is empty"),
        ({"benchmarks": []}, "benchmarks is empty"),
        ({"modes": []}, "modes is empty"),
        ({"reasoners": []}, "need a reasoner"),
        ({"limit": 0}, "^got limit=0, expected 1 or more"),
        ({"samples": 0}, "^got samples=0, expected 1 or more$"),
        ({"judge": "http://localhost:1/v1"}, "goes with the rule vlmevalkit only"),
        ({"samples": 4}, "greedy reasoner"),
    ],
)
def test_settings_that_cannot_work_are_told_before_anything_runs(changes, words):
    good = {"benchmarks": "figures", "captioners": RUNS, "reasoners": "embedded:figure-reasoner"}
    EvaluationSettings(**good).plan()
    with pytest.raises(RacroError, match=words):
        EvaluationSettings(**{**good, **changes}).plan()


def test_a_captioner_alone_needs_no_reasoner():
    plan = EvaluationSettings("figures", RUNS, modes=["direct"]).plan()
    assert not plan.reasoners


def test_entries_may_be_written_out():
    reasoner = InProcessReasoner("embedded:figure-reasoner", temperature=0.5)
    settings = EvaluationSettings(
        [BenchmarkSettings("figures")], [CaptionerSettings("x/y", batch_size=2)], [ReasonerSettings(reasoner)]
    ).plan()
    assert settings.captioners[0].name == "y"
    assert settings.reasoners[0].name == "figure-reasoner"


def test_modes_are_named_as_captioners_are():
    def modes(value):
        return EvaluationSettings("figures", RUNS, "embedded:figure-reasoner", modes=value).plan().modes

    assert modes("caption,direct") == modes(["caption", "direct"]) == ["direct", "caption"]
    with pytest.raises(RacroError, match="there is no mode 'captions'; expected some of direct, caption"):
        modes("captions,direct")
    with pytest.raises(RacroError, match="modes is empty"):
        modes("")
