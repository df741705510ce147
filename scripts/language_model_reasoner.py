"""A published language model as a further reader of the reckoning world's captions, by a real vLLM.

    racro-pl fit --config configs/reckoning.yaml
    python scripts/language_model_reasoner.py --vllm-python .venv-vllm/bin/python --publish

scripts/setup_cpu_vllm.sh makes the environment with vLLM, scripts/fetch_reasoner.py the model (SmolLM2-135M-Instruct).
A LoRA stage on text (``reckoning_models/language_model.py``) makes OUT/model of it unless that is there. vLLM serves
one after the other; both read true captions, greedily, and the one that was trained also those of the captioner before
and after its training.
Figures go to OUT; with --publish also to docs/results/language_model.json and into docs/experiments.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parent))

from experiment_parts.layout import table, table_row
from experiment_parts.report import fill
from experiment_parts.runs import ROOT, execute

from racro_pl.data.benchmarks import find_benchmark
from racro_pl.reckoning_world.world import true_caption
from racro_pl.reward import HttpReasoner, Scorer
from racro_pl.serving.vllm_process import ServerSettings, VllmServer
from racro_pl.text.answers import last_boxed

PLAIN, ADAPTED = "smollm2", "smollm2-reckoning"
"""Names of the model as it comes, and with the adapter merged."""
TITLES = {PLAIN: "SmolLM2-135M as it comes", ADAPTED: "SmolLM2-135M, LoRA on text"}
TRUE = "true captions"
LONGEST = 96
"""Tokens of a reply: the adapted model needs a third of it."""
PATIENCE_S = 3600.0
"""For the start of a server and for an answer: all questions are sent at once, and a CPU may be shared."""
NAME = "language_model"
"""Of the table, of the file of figures, and of the test's run folder."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vllm-python", required=True, help="interpreter of an environment with vLLM")
    parser.add_argument("--model", type=Path, default=Path(".models/smollm2-135m-instruct"))
    parser.add_argument("--after", default="runs/reckoning", help="the trained captioner")
    parser.add_argument("--questions", type=int, default=500, help="of the test, the first; all types in equal shares")
    parser.add_argument("--out", type=Path, default=Path("runs/language_model"))
    parser.add_argument("--publish", action="store_true", help="write into docs/ too")
    options = parser.parse_args()
    out: Path = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "model/config.json").is_file():
        teach = [sys.executable, "-m", "reckoning_models.language_model", str(out / "model")]
        execute([*teach, "--model", str(options.model.absolute())], out / "model.log")
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, path in {PLAIN: options.model, ADAPTED: out / "model"}.items():
        with served(path, name, options.vllm_python, out) as server:
            found[name] = {TRUE: right_with_true_captions(server, options.questions)}
            if name == ADAPTED:
                found[name] |= read_captions(server, options.after, out, options.questions)
        (out / f"{NAME}.json").write_text(json.dumps(found, indent=1) + "\n")
    print(language_model_table(found))
    if options.publish:
        (ROOT / f"docs/results/{NAME}.json").write_text(json.dumps(found, indent=1) + "\n")
        fill(ROOT / "docs/experiments.md", {NAME: language_model_table(found)})


def served(model: Path, name: str, python: str, out: Path) -> VllmServer:
    """A server of a model under a name; a context manager."""
    # Compiling the model would take longer than the tokens of this test gain from it. Merged, since vLLM's CPU build
    # took minutes for the first words of an adapter beside the model.
    settings = ServerSettings(python, max_model_len=1024, start_timeout_s=PATIENCE_S, extra_args=["--enforce-eager"])
    return VllmServer(model, settings, served_model_name=name, log_path=out / "vllm.log")


def client(name: str) -> dict[str, Any]:
    """How a model is asked."""
    limits = {"deadline_s": PATIENCE_S, "attempt_s": PATIENCE_S}
    return {"model": name, "temperature": 0.0, "max_tokens": LONGEST, **limits}


def right_with_true_captions(server: VllmServer, count: int) -> dict[str, float]:
    """Shares of ``right`` and of ``boxed`` answers from captions that state just what is asked."""
    reasoner = HttpReasoner(server.url, **client(server.served_model_name))
    questions = find_benchmark("reckoning").read().questions[:count]
    scorer = Scorer(reasoner, cache="off")
    waiting = [scorer.submit(question, [f" {true_caption(question)}"]) for question in questions]
    rewards = [each.result() for each in waiting]
    scorer.close()
    unscored = [each.reasons[0] for each in rewards if not each.scored[0]]
    if unscored:
        raise SystemExit(f"{len(unscored)} of {len(rewards)} questions got no answer: {unscored[0]}; see the vllm.log")
    return {
        "right": sum(each.total[0] for each in rewards) / len(rewards),
        "boxed": sum(last_boxed(each.answers[0][0]) is not None for each in rewards) / len(rewards),
    }


def read_captions(server: VllmServer, after: str, out: Path, count: int) -> dict[str, dict[str, float]]:
    """``racro-pl test`` of the captioner before and after its training, through the model that was trained.

    Returns:
        By captioner (``before``, ``after``): the shares of right (``right``) and of ``boxed`` answers.
    """
    settings: dict[str, Any] = yaml.safe_load((ROOT / "configs/test_reckoning.yaml").read_text())
    settings["captioners"][1]["path"] = after
    reasoner = {"class_path": "racro_pl.reward.HttpReasoner", "init_args": {"url": server.url, **client(ADAPTED)}}
    settings["reasoners"] = [{"name": ADAPTED, "reasoner": reasoner}]
    settings |= {"name": NAME, "modes": ["caption"], "limit": count}
    config = out / "test.yaml"
    config.write_text(yaml.safe_dump(settings, sort_keys=False))
    command = [sys.executable, "-m", "racro_pl", "test", "--config", str(config), "--runs", str(out)]
    execute(command, out / "test.log")
    folder = max((out / NAME).glob("version_*/results.json"), key=lambda file: file.stat().st_mtime).parent
    boxed: dict[str, list[bool]] = {}
    for line in (folder / "answers.jsonl").read_text().splitlines():
        row = json.loads(line)
        boxed.setdefault(row["captioner"], []).append(last_boxed(row["text"]) is not None)
    cells = json.loads((folder / "results.json").read_text())["cells"]
    right = {cell["system"]["captioner"]: cell["headline"] for cell in cells}
    return {name: {"right": right[name], "boxed": sum(each) / len(each)} for name, each in boxed.items()}


def language_model_table(found: dict[str, dict[str, dict[str, float]]]) -> str:
    """Right answers by whose captions are read, and how many of a model's replies hold a box at all."""
    lines = []
    for name, figures in found.items():
        cells = [f"{100 * figures[when]['right']:.1f}" if when in figures else "" for when in ("before", "after", TRUE)]
        boxed = sum(each["boxed"] for each in figures.values()) / len(figures)
        lines.append(table_row(TITLES[name], [*cells, f"{100 * boxed:.1f}"]))
    return table("| from the caption | before | after | its ceiling, with true captions | replies with a box |", lines)


if __name__ == "__main__":
    main()
