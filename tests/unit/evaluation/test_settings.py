import pytest

from racro_pl.data.benchmarks.loading import BenchmarkSettings
from racro_pl.evaluation.settings import (
    CaptionerSettings,
    EvaluationSettings,
    ReasonerSettings,
    SamplingSettings,
    open_reasoner,
)
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
        ({"samples": 4}, "reasoner embedded:figure-reasoner .* given by its name is always greedy: set samples: 1"),
        (
            {"samples": 4, "reasoners": "http://localhost:1/v1", "sampling": SamplingSettings(0.0)},
            "reasoner http://localhost:1/v1 are all the same; set samples: 1, or a temperature above 0",
        ),
    ],
)
def test_settings_that_cannot_work_are_told_before_anything_runs(changes, words):
    good = {"benchmarks": "figures", "captioners": RUNS, "reasoners": "embedded:figure-reasoner"}
    EvaluationSettings(**good).plan()
    with pytest.raises(RacroError, match=words):
        EvaluationSettings(**{**good, **changes}).plan()


@pytest.mark.parametrize("where", ["http://localhost:1/v1", "some/model", "embedded:figure-reasoner"])
@pytest.mark.parametrize(
    ("sampling", "words"),
    [
        (SamplingSettings(temperature=float("nan")), "temperature is nan; expected a finite number"),
        (SamplingSettings(temperature=float("inf")), "temperature is inf; expected a finite number"),
        (SamplingSettings(temperature=-1.0), "temperature is -1.0; expected a finite number, 0 .greedy. or more"),
        (SamplingSettings(top_p=0.0), "top_p is 0.0; expected a share above 0"),
        (SamplingSettings(top_p=1.5), "top_p is 1.5; expected a share above 0, at most 1"),
        (SamplingSettings(max_tokens=0), "max_tokens is 0; expected 1 or more"),
    ],
)
def test_sampling_that_cannot_be_is_told_also_where_a_reasoner_does_not_follow_it(where, sampling, words):
    open_reasoner(where, SamplingSettings())
    with pytest.raises(RacroError, match=f"^sampling: {words}"):
        open_reasoner(where, sampling)


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
