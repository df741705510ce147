"""``racro-pl test``: captioners through reasoners on benchmarks, as a table, ``results.json`` and ``report.html``."""

from __future__ import annotations

import datetime
import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import jsonargparse
import torch
from lightning.fabric import Fabric
from lightning.fabric.strategies import DDPStrategy

from racro_pl.commands.guard import HELP, GuardedErrors, guard, offer_completion, refuse_keys
from racro_pl.commands.public import public_identity, public_place
from racro_pl.commands.quiet import quiet_libraries
from racro_pl.data.benchmarks.loading import BenchmarkSettings, LoadedBenchmark
from racro_pl.evaluation.captioner_source import identity
from racro_pl.evaluation.exporting import export_vlmevalkit, vlmevalkit_file
from racro_pl.evaluation.outcomes import Tools
from racro_pl.evaluation.paper import paper_rows
from racro_pl.evaluation.pipeline import Evaluation, Place, check_parts, read_benchmarks
from racro_pl.evaluation.report.gallery import GalleryEntry, GalleryItem
from racro_pl.evaluation.report.html import write_report
from racro_pl.evaluation.report.table import ResultsView
from racro_pl.evaluation.results import Results
from racro_pl.evaluation.run_folder import Identities, open_run
from racro_pl.evaluation.scoring.judge import HttpJudge
from racro_pl.evaluation.settings import EvaluationSettings, Plan
from racro_pl.evaluation.verdicts import read_verdicts, score_all
from racro_pl.files import write_atomically
from racro_pl.reporting import surviving
from racro_pl.reward import Grader
from racro_pl.terminal import Console
from racro_pl.training.distributed import disconnect_at_exit
from racro_pl.types import RacroError

PATIENCE = datetime.timedelta(days=2)
"""How long a rank that is done waits for the others, whose questions may take longer."""


def main(arguments: list[str]) -> int:
    """Run ``test``; returns the exit code: 1 when some questions have no answer."""
    quiet_libraries()
    offer_completion()
    options = build_parser().parse_args(guard(arguments))
    refuse_keys(options.as_dict())
    config = build_parser().instantiate(options)
    plan = EvaluationSettings(**{field.name: config[field.name] for field in fields(EvaluationSettings)}).plan()
    fabric = open_fabric(config.accelerator, config.devices, config.num_nodes)
    fabric.launch()
    disconnect_at_exit()
    console = Console(stderr=True, quiet=not fabric.is_global_zero)
    benchmarks = read_benchmarks(plan, console)
    if config.export:
        for loaded in benchmarks:
            vlmevalkit_file(loaded)
    check_parts(plan, fabric.device)
    place = Place(fabric.device, fabric.global_rank, fabric.world_size)
    folder = _folder(fabric, plan, benchmarks, options, console)
    evaluation = Evaluation(plan, benchmarks, folder, place, console)
    if fabric.is_global_zero:
        write_atomically(folder / "config.yaml", build_parser().dump(options), owner_only=True)
    fabric.barrier()
    evaluation.run()
    fabric.barrier()
    judge = HttpJudge(plan.judge) if plan.judge else None
    try:
        with Grader() as grader:
            cells, comparisons = score_all(evaluation, Tools(grader, judge), folder)
    finally:
        if judge is not None:
            judge.close()
    problems = _everybodys(evaluation.problems)
    if not fabric.is_global_zero:
        return 0
    # Opened again: other ranks have written since this one looked.
    evaluation = Evaluation(plan, benchmarks, folder, place, console)
    results = Results(
        name=config.name,
        created=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        settings=_summary(plan, benchmarks),
        cells=tuple(cells),
        comparisons=tuple(comparisons),
        paper=paper_rows([loaded.name for loaded in benchmarks]),
    )
    if config.export:
        verdicts = read_verdicts(folder)
        files = [path for loaded in benchmarks
                 for path in export_vlmevalkit(loaded, evaluation.systems(), verdicts, folder)]  # fmt: skip
        console.print(f"for VLMEvalKit: {len(files)} files in {files[0].parent}", highlight=False, markup=False)
    return _report(evaluation, results, folder, problems, console)


class _Parser(GuardedErrors, jsonargparse.ArgumentParser):
    """jsonargparse's."""


def build_parser() -> jsonargparse.ArgumentParser:
    """The command line of ``test``."""
    parser = _Parser(
        prog="racro-pl test", usage="racro-pl test --config FILE [options]", description=f"{__doc__} {HELP}"
    )
    parser.add_argument("--config", action="config", help="YAML file; later files and flags win over earlier ones")
    parser.add_class_arguments(EvaluationSettings)
    parser.add_argument("--name", type=str, default="test", help="the run's folder is runs/<name>/version_k/")
    parser.add_argument("--runs", type=str, default="runs", help="folder that holds all runs")
    parser.add_argument(
        "--fresh", type=bool, default=False, help="start a new version instead of resuming the last one"
    )
    parser.add_argument(
        "--export", type=Literal["vlmevalkit"] | None, default=None,
        help="vlmevalkit: also write the answers as files that its scoring reads (PRED_FORMAT=tsv)",
    )  # fmt: skip
    parser.add_argument("--accelerator", type=str, default="auto", help="auto, cpu or cuda")
    parser.add_argument("--devices", type=str, default="auto", help="number of processes; auto: one per GPU")
    parser.add_argument("--num_nodes", type=int, default=1, help="machines, as for torchrun or SLURM")
    return parser


def open_fabric(accelerator: str, devices: str, num_nodes: int) -> Fabric:
    """The processes that share a command's work.

    Raises:
        RacroError: ``devices`` is no number.
    """
    if devices != "auto" and not (devices.isdigit() and int(devices) > 0):
        raise RacroError(f"devices is {devices!r}; expected auto or a number of processes")
    count = int(devices) if devices != "auto" else "auto"
    fabric = Fabric(accelerator=accelerator, devices=count, num_nodes=num_nodes)
    if fabric.world_size > 1:
        strategy = DDPStrategy(timeout=PATIENCE)
        fabric = Fabric(accelerator=accelerator, strategy=strategy, devices=count, num_nodes=num_nodes)
    return fabric


def _folder(fabric: Fabric, plan: Plan, benchmarks: list[LoadedBenchmark], options: Any, console: Console) -> Path:
    """The run's folder, chosen by the first process."""
    chosen = ""
    if fabric.is_global_zero:
        on_gpu = fabric.device.type != "cpu"
        identities = Identities(
            {loaded.name: _source(loaded.settings) for loaded in benchmarks},
            {entry.name: identity(entry, on_gpu) for entry in plan.captioners},
            {entry.name: entry.reasoner.identity for entry in plan.reasoners},
        )
        folder, found = open_run(Path(options.runs), options.name, identities, options.fresh)
        chosen = str(folder)
        console.print(
            f"{'resuming' if found else 'run folder:'} {chosen}", highlight=False, markup=False, soft_wrap=True
        )
    return Path(fabric.broadcast(chosen))


def _source(settings: BenchmarkSettings) -> str:
    """What a benchmark's questions come from; a changed file is another source."""
    path = Path(settings.path) if settings.path else None
    state = f" {path.stat().st_size} {path.stat().st_mtime_ns}" if path is not None and path.is_file() else ""
    return f"{settings.path or 'default'} {settings.split or 'default'}{state}"


def _summary(plan: Plan, benchmarks: list[LoadedBenchmark]) -> dict[str, Any]:
    """For results.json and the report, which are made to be handed on; config.yaml has places and addresses."""
    return {
        "rule": plan.rule,
        "judge": public_place(plan.judge),
        "samples": plan.samples,
        "limit": plan.limit,
        "benchmarks": {loaded.name: public_place(loaded.settings.path) for loaded in benchmarks},
        "captioners": {entry.name: public_place(entry.path) for entry in plan.captioners},
        "reasoners": {entry.name: public_identity(entry.reasoner.identity) for entry in plan.reasoners},
    }


def _everybodys(problems: Counter[str]) -> Counter[str]:
    """The problems of all ranks. Waits for the slowest."""
    if not torch.distributed.is_initialized():
        return problems
    gathered: list[Counter[str]] = [Counter()] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, problems)
    return sum(gathered, Counter())


def _report(evaluation: Evaluation, results: Results, folder: Path, problems: Counter[str], console: Console) -> int:
    write_atomically(folder / "results.json", results.to_json() + "\n")
    out = Console(file=sys.stdout, width=None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "160")))
    out.print(ResultsView(results))
    with surviving("report.html", folder / "results.json"):
        report = write_report(folder, results, _gallery(evaluation, folder))
        console.print(f"report: {report}", highlight=False, markup=False, soft_wrap=True)
    missing = sum(cell.unanswered for cell in results.cells)
    if missing:
        reasons = ", ".join(f"{kind} {count}" for kind, count in problems.most_common())
        told = f"{missing} answers are missing ({reasons or 'see above'}); the same command asks for them again"
        console.print(told, markup=False)
    return 1 if missing else 0


def _gallery(evaluation: Evaluation, folder: Path) -> Iterator[GalleryItem]:
    verdicts = read_verdicts(folder)
    for loaded in evaluation.benchmarks:
        for question in loaded.questions:
            entries = {}
            for system in evaluation.systems():
                verdict = verdicts.get((loaded.name, question.id, system))
                entries[system] = GalleryEntry(
                    caption=evaluation.text(question, system.captioner, "caption"),
                    tentative=evaluation.text(question, system.captioner, "tentative"),
                    response=verdict["response"] if verdict else None,
                    extracted=verdict["extracted"] if verdict else None,
                    correct=verdict["correct"] if verdict else None,
                )
            yield GalleryItem(loaded.name, question, loaded.benchmark.categories(question), entries)
