"""How often the judges of vpo's caption penalty agree with texts labelled by hand (has it a caption, or not).

    python scripts/judge_agreement.py [--captioner MODEL] [--reasoner MODEL]

MODEL is a folder, a hub id or an embedded: name. The rule is always measured. A judge that says the same of every text
agrees with half of them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from racro_pl.figure_world.models import resolve_model
from racro_pl.policy.config import PolicySettings
from racro_pl.policy.loading import load_captioner
from racro_pl.reward import CaptionJudge, InProcessReasoner, ReasonerJudge, RuleJudge
from racro_pl.training.objectives import PolicyJudge
from racro_pl.types import Question

LABELLED = Path(__file__).parents[1] / "tests/unit/text/labelled_captions.jsonl"


def agreement(judge: CaptionJudge, rows: list[dict]) -> str:
    """Counts of verdicts that agree, by label, and of texts without a verdict."""
    pending = [judge.submit(Question("q", (), row["question"], "", "text"), [row["text"]]) for row in rows]
    verdicts = [waiting()[0] for waiting in pending]
    counts = {}
    for label, name in ((True, "captions"), (False, "solutions")):
        chosen = [verdict for verdict, row in zip(verdicts, rows, strict=True) if row["has_caption"] == label]
        counts[name] = f"{sum(verdict is label for verdict in chosen)}/{len(chosen)} {name}"
    agreed = sum(verdict is row["has_caption"] for verdict, row in zip(verdicts, rows, strict=True))
    return f"{agreed}/{len(rows)} ({', '.join(counts.values())}; {verdicts.count(None)} without a verdict)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captioner")
    parser.add_argument("--reasoner")
    parser.add_argument("--max-new-tokens", type=int, default=64, help="of the reasoner's reply")
    options = parser.parse_args()
    rows = [json.loads(line) for line in LABELLED.read_text(encoding="utf-8").splitlines()]
    for part in ("development", "held out"):
        print(f"rule, {part}: {agreement(RuleJudge(), [row for row in rows if row['part'] == part])}")
    if options.captioner:
        policy = PolicySettings(resolve_model(options.captioner), dtype="float32", gradient_checkpointing=False)
        captioner = load_captioner(policy, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        print(f"policy {options.captioner}: {agreement(PolicyJudge(lambda: captioner), rows)}")
    if options.reasoner:
        reasoner = InProcessReasoner(options.reasoner, temperature=0.0, max_new_tokens=options.max_new_tokens)
        reasoner.check()
        print(f"reasoner {options.reasoner}: {agreement(ReasonerJudge(reasoner), rows)}")
        reasoner.close()


if __name__ == "__main__":
    main()
