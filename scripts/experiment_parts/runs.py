"""Which runs there are: one ``racro-pl fit`` each, in ten tables, every row with every seed."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parents[2]
PARTS = Path(__file__).parent
QUICKSTART = ("--config", "configs/quickstart.yaml")
HABIT = "habit"
"""Folder of the captioner that solves half of the time, within the folder of all runs; its module's name."""
AT_ENDS = 1000
"""For ``validate_every``: more steps than any run has, where no table or picture shows what lies between the ends."""


@dataclass(frozen=True)
class Row:
    """What a row of a table changes of the quickstart, or of the reckoning world's configuration."""

    name: str
    """Of its runs' folders."""
    title: str
    """In the table."""
    options: tuple[str, ...]
    after: str = ""
    """Name of the row whose runs have to be finished: this one starts from what they trained."""
    validate_every: int = 10
    """Steps. Validation is greedy and changes nothing that follows."""

    def starts_from(self, name: str) -> bool:
        """Whether its runs start from what a module of this name made in the folder of all runs."""
        return any(option.startswith(f"{{runs}}/{name}/") for option in self.options)


def _quickstart(name: str, title: str, *options: str, validate_every: int = 10) -> Row:
    return Row(name, title, (*QUICKSTART, *options), validate_every=validate_every)


CRO = _quickstart("cro", "CRO: paid when the reasoner is right")
AGAINST = (
    CRO,
    _quickstart("shuffled", "rewards shuffled within each group", "--model.reward.shuffle", "true"),
    _quickstart(
        "generic", "paid for true facts, whatever is asked",
        "--model.reward.class_path", "experiment_parts.rewards.GenericCaptionScorer", "--allow-imports",
    ),
    Row(
        "qa", "GRPO on its own answers (no decoupling)",
        ("--config", "configs/quickstart_qa.yaml", "--trainer.max_steps", "80"),
    ),
)  # fmt: skip

_TRUSTING = (
    "--config", "scripts/experiment_parts/trusting.yaml", "--model.policy.adapter", f"{{runs}}/{HABIT}/adapter",
    "--allow-imports",
)  # fmt: skip
_PENALTY = ("--model.objective.name", "vpo", "--model.objective.caption_judge", "rule")
PENALTY = (
    _quickstart("easy_cro", "CRO", *_TRUSTING, validate_every=AT_ENDS),
    _quickstart(
        "easy_vpo", "VPO, λ = 0.1", *_TRUSTING, *_PENALTY, "--model.objective.caption_penalty", "0.1",
        validate_every=AT_ENDS,
    ),
)  # fmt: skip

_SAMPLING = ("--model.reward.reasoner.init_args.temperature", "1.0")
SETTINGS = (
    _quickstart("votes_1", "1 vote, 16 questions a step (reasoner at temperature 1)", *_SAMPLING),
    _quickstart(
        "votes_4", "4 votes, 4 questions a step (reasoner at temperature 1)", *_SAMPLING,
        "--model.reward.votes", "4", "--data.questions_per_step", "4",
    ),
    replace(CRO, title="G = 8, 16 questions a step; rank 16; float32 (the quickstart)"),
    _quickstart("rank_4", "LoRA rank 4, alpha 8", "--model.policy.lora.rank", "4", "--model.policy.lora.alpha", "8"),
    Row("nf4", "base in NF4", ("--config", "configs/quickstart_qlora.yaml")),
)  # fmt: skip
"""Each validates as often as the others, since their seconds are compared."""


def _reckoning(name: str, title: str, *options: str, validate_every: int = AT_ENDS) -> Row:
    return Row(name, title, ("--config", "configs/reckoning.yaml", *options), validate_every=validate_every)


_REPORT = "[{{class_path: racro_pl.callbacks.LearningReport, init_args: {{questions: 20, reasoners: null}}}}]"
_TESTED = ("--trainer.callbacks", _REPORT)
"""For runs whose figures come from tests: a report of a few questions."""


RECKONING = (
    _reckoning(
        "reckoning", "CRO: paid when the weak reasoner is right",
        "--trainer.callbacks+=experiment_parts.curves.ReaderCurves", "--allow-imports", validate_every=10,
    ),
)  # fmt: skip
RECKONING_CONTROLS = (
    *RECKONING,
    _reckoning("reckoning_shuffled", "rewards shuffled within each group", "--model.reward.shuffle", "true", *_TESTED),
    _reckoning(
        "reckoning_generic", "paid for true facts, whatever is asked",
        "--model.reward.class_path", "experiment_parts.reckoning.GenericCaptionScorer", "--allow-imports", *_TESTED,
    ),
    _reckoning(
        "reckoning_qa", "GRPO on its own answers (no decoupling)",
        "--model.reward", "null", "--model.objective.name", "qa", "--model.objective.kl_coefficient", "0",
        *_TESTED,
    ),
)  # fmt: skip
RECKONING_NARROW = (
    _reckoning(
        "reckoning_narrow", "CRO: paid when the narrow reasoner is right",
        "--model.reward.reasoner.init_args.path", "embedded:reckoning-narrow",
    ),
)  # fmt: skip
DESCRIBING = "describing"
"""Folder of the captioner that describes and then answers, within the folder of all runs; its module's name."""


def _described(name: str, title: str, *options: str) -> Row:
    return _reckoning(
        name, title, "--model.policy.adapter", f"{{runs}}/{DESCRIBING}/adapter", "--model.objective.name", "qa",
        "--model.reward.class_path", "racro_pl.reward.DescribedAnswers", *options,
        "--model.rollout.init_args.max_new_tokens", "18", "--trainer.max_steps", "40", *_TESTED,
    )  # fmt: skip


DESCRIBED = (
    _described("described_answer", "paid for the right answer alone", "--model.reward.init_args.description", "0"),
    _described("described_sum", "paid for answer and description"),
)  # fmt: skip


def _general(name: str, title: str, *options: str) -> Row:
    """Four training questions to each picture, no KL term: nothing but the reward keeps unasked facts true."""
    pictures = ("--data.reader.init_args.questions_per_picture", "4")
    forty = ("--model.objective.kl_coefficient", "0", "--trainer.max_steps", "40", *_TESTED)
    options = ("--config", "configs/reckoning.yaml", *options, *pictures, *forty)
    return Row(name, title, options, validate_every=AT_ENDS)


GENERAL = (
    _general("general_cro", "paid for the question alone"),
    _general(
        "general_several", "paid for it and three others about the picture",
        "--model.reward.class_path", "racro_pl.reward.SeveralQuestions",
    ),
)  # fmt: skip
LOOKING = "looking"
"""Folder of the captioner that looks before it answers, within the folder of all runs."""
PREPARED = {HABIT: "adapter", DESCRIBING: "adapter", LOOKING: "model"}
"""Captioners to start from: the module of each, and its folder's part that holds the weights."""
_FROM_LOOKING = (
    "--config", "configs/reckoning.yaml", "--model.policy.path", f"{{runs}}/{LOOKING}/model", *_TESTED,
)  # fmt: skip
_OWN = ("--model.reward", "null", "--model.objective.name", "qa", "--model.objective.kl_coefficient", "0")


def _looking(name: str, title: str, *options: str, after: str = "") -> Row:
    adapter = ("--model.policy.adapter", f"{{runs}}/{after}-{{seed}}") if after else ()
    return Row(name, title, (*_FROM_LOOKING, *options, *adapter), after, validate_every=AT_ENDS)


_BOTH = ("--model.objective.name", "joint")
JOINT = (
    _looking("looking_cro", "CRO alone"),
    _looking("looking_qa", "own answers alone", *_OWN),
    _looking(
        "looking_joint", "joint, 120 steps", *_BOTH, "--model.objective.answer_weight", "0.5",
        "--trainer.max_steps", "120",
    ),
    _looking("looking_qa_cro", "own answers, then CRO", after="looking_qa"),
    _looking("looking_cro_qa", "CRO, then own answers", *_OWN, after="looking_cro"),
)  # fmt: skip
JOINT_FIGURES = (
    _quickstart(
        "figure_joint", "joint", *_BOTH, "--model.objective.answer_kl_coefficient", "4e-2", *_TESTED,
        validate_every=AT_ENDS,
    ),
)  # fmt: skip
TABLES = {
    "against": AGAINST,
    "penalty": PENALTY,
    "settings": SETTINGS,
    "reckoning": RECKONING,
    "reckoning_controls": RECKONING_CONTROLS,
    "reckoning_narrow": RECKONING_NARROW,
    "reckoning_described": DESCRIBED,
    "reckoning_general": GENERAL,
    "joint": JOINT,
    "joint_figures": JOINT_FIGURES,
}


@dataclass(frozen=True)
class Run:
    """A row with a seed."""

    row: Row
    seed: int

    @property
    def name(self) -> str:
        return f"{self.row.name}-{self.seed}"

    def options(self, out: Path) -> list[str]:
        """Of ``racro-pl``; a seed changes the adapter, the order of questions and all that is sampled."""
        options = [option.format(runs=out, seed=self.seed) for option in self.row.options]
        seeds = ["--seed_everything", str(self.seed), "--data.seed", str(self.seed)]
        where = ["--runs", str(out), "--name", self.name]
        where += ["--trainer.val_check_interval", str(self.row.validate_every)]
        return ["fit", *options, *seeds, *where]

    def folder(self, out: Path) -> Path | None:
        """Where a finished run lies; None when there is none."""
        return newest(out / self.name)


def newest(folder: Path) -> Path | None:
    """The newest finished version of a run; None when there is none."""
    done = [file.parent for file in folder.glob("version_*/held_out.json")]
    return max(done, key=lambda folder: int(folder.name.split("_")[1]), default=None)


def planned(tables: Sequence[str], seeds: Sequence[int]) -> list[Run]:
    """All runs of some tables, each once: rows that stand in two tables are shared."""
    rows = {row.name: row for table in tables for row in TABLES[table]}
    return [Run(row, seed) for row in rows.values() for seed in seeds]


def execute(command: Sequence[str], log: Path) -> None:
    """Run a command of one thread, its output and its seconds to a file.

    Raises:
        RuntimeError: it ended with another status than 0.
    """
    places = os.pathsep.join([str(ROOT), str(PARTS.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": places}
    start = time.monotonic()
    with log.open("w") as output:
        code = subprocess.run(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, env=environment).returncode
        output.write(f"\n{time.monotonic() - start:.0f} s\n")
    if code:
        raise RuntimeError(f"{' '.join(command)} ended with status {code}; see {log}")
