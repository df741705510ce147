"""``racro-pl test``: captioners through reasoners on benchmarks, as a table, ``results.json`` and ``report.html``."""

from __future__ import annotations

import datetime
import functools
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import jsonargparse
from lightning.pytorch import Trainer

from racro_pl.commands.guard import HELP, ConfigParser, guard, offer_completion, refuse_keys
from racro_pl.commands.public import public_identity, public_place
from racro_pl.commands.quiet import quiet_libraries
from racro_pl.data.benchmark_datamodule import BenchmarkDataModule
from racro_pl.data.benchmarks.loading import LoadedBenchmark
from racro_pl.evaluation.captioner_module import CaptionerModule, batch_size_for, open_trainer, predict
from racro_pl.evaluation.captioner_source import identity
from racro_pl.evaluation.exporting import export_vlmevalkit, vlmevalkit_file
from racro_pl.evaluation.outcomes import Tools
from racro_pl.evaluation.paper import paper_rows
from racro_pl.evaluation.pipeline import BenchmarkCaptions, Evaluation, Place, check_parts, check_rules
from racro_pl.evaluation.report.gallery import GalleryEntry, GalleryItem
from racro_pl.evaluation.report.html import write_report
from racro_pl.evaluation.report.table import ResultsView
from racro_pl.evaluation.results import Results
from racro_pl.evaluation.run_folder import Identities, open_run
from racro_pl.evaluation.scoring.judge import HttpJudge
from racro_pl.evaluation.settings import CaptionerSettings, EvaluationSettings, Plan
from racro_pl.evaluation.verdicts import read_verdicts, score_all
from racro_pl.files import write_atomically
from racro_pl.reporting import surviving
from racro_pl.reward import Grader
from racro_pl.terminal import Console
from racro_pl.text.printable import printable
from racro_pl.training.distributed import disconnect_at_exit, join_ranks
from racro_pl.types import RacroError


def main(arguments: list[str]) -> int:
    """Run ``test``; returns the exit code: 1 when some questions have no answer."""
    quiet_libraries()
    offer_completion()
    options = build_parser().parse_args(guard(arguments))
    refuse_keys(options.as_dict())
    config = build_parser().instantiate(options)
    plan = EvaluationSettings(**{field.name: config[field.name] for field in fields(EvaluationSettings)}).plan()
    check_rules(plan)
    trainer = open_trainer(config.accelerator, config.devices, config.num_nodes)
    console = Console(stderr=True, quiet=not trainer.is_global_zero)
    data = BenchmarkDataModule(*plan.benchmarks, limit=plan.limit)
    with ExitStack() as files:

        @functools.cache
        def begin() -> Evaluation:
            """In every process, when Lightning has started all of them and the questions are read."""
            disconnect_at_exit(trainer)
            evaluation = _open(trainer, plan, data.benchmarks, options, console)
            files.callback(evaluation.close)
            return evaluation

        def job(captioner: CaptionerSettings) -> BenchmarkCaptions:
            return BenchmarkCaptions(begin(), captioner)

        for captioner in plan.captioners:
            data.batch_size = batch_size_for(captioner)
            predict(trainer, CaptionerModule(captioner, functools.partial(job, captioner)), data)
        evaluation = begin()
        evaluation.ask_reasoners()
    trainer.strategy.barrier()
    return _score(evaluation, config, plan, console)


def _open(
    trainer: Trainer, plan: Plan, benchmarks: list[LoadedBenchmark], options: Any, console: Console
) -> Evaluation:
    """Find out what is wrong before hours of work, and open the run's folder."""
    for loaded in benchmarks:
        console.say(str(loaded))
        if options.export:
            vlmevalkit_file(loaded)
    place = Place(trainer.strategy.root_device, trainer.global_rank, trainer.world_size)
    check_parts(plan, place.device)
    chosen = ""
    if trainer.is_global_zero:
        chosen = _folder(plan, benchmarks, options, place.device.type != "cpu", console)
        write_atomically(Path(chosen, "config.yaml"), build_parser().dump(options), owner_only=True)
    return Evaluation(plan, benchmarks, Path(trainer.strategy.broadcast(chosen)), place, console)


def _score(evaluation: Evaluation, config: Any, plan: Plan, console: Console) -> int:
    """Verdicts by all ranks; table, results and report by the first."""
    benchmarks, folder, place = evaluation.benchmarks, evaluation.folder, evaluation.place
    with Grader() as grader, closing(HttpJudge(plan.judge)) if plan.judge else nullcontext() as judge:
        cells, comparisons = score_all(evaluation, Tools(grader, judge), folder)
    problems = sum(join_ranks([evaluation.problems]), Counter())
    if place.rank != 0:
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
        console.say(f"for VLMEvalKit: {len(files)} files in {files[0].parent}")
    return _report(evaluation, results, folder, problems, console)


def build_parser() -> jsonargparse.ArgumentParser:
    """The command line of ``test``."""
    parser = ConfigParser(
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


def _folder(plan: Plan, benchmarks: list[LoadedBenchmark], options: Any, on_gpu: bool, console: Console) -> str:
    """The run's folder, chosen by the first process."""
    identities = Identities(
        {loaded.name: _source(loaded) for loaded in benchmarks},
        {entry.name: identity(entry, on_gpu) for entry in plan.captioners},
        {entry.name: entry.reasoner.identity for entry in plan.reasoners},
    )
    folder, found = open_run(Path(options.runs), options.name, identities, options.fresh)
    console.say(f"{'resuming' if found else 'run folder:'} {folder}")
    return str(folder)


def _source(loaded: LoadedBenchmark) -> str:
    """What a benchmark's questions come from; a changed file, given or in a folder that was given, is another source.

    Of a hub id the files may be downloaded again and are the same; VLMEvalKit's own are told by their checksum.
    """
    path, split = loaded.settings.path, loaded.settings.split
    given = path is not None and Path(path).expanduser().exists()
    state = "".join(f" {file.stat().st_size} {file.stat().st_mtime_ns}" for file in loaded.files if given)
    return f"{path or 'default'} {split or 'default'}{state}"


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


def _report(evaluation: Evaluation, results: Results, folder: Path, problems: Counter[str], console: Console) -> int:
    _tell_replaced(folder / "results.json", results, console)
    write_atomically(folder / "results.json", results.to_json() + "\n")
    out = Console(file=sys.stdout, width=None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "160")))
    out.print(ResultsView(results))
    with surviving("report.html", folder / "results.json"):
        report = write_report(folder, results, _gallery(evaluation, folder))
        console.say(f"report: {report}")
    missing = sum(cell.unanswered for cell in results.cells)
    if missing:
        reasons = ", ".join(f"{kind} {count}" for kind, count in problems.most_common())
        console.say(f"{missing} answers are missing ({reasons or 'see above'}); the same command asks for them again")
    return 1 if missing else 0


def _tell_replaced(file: Path, results: Results, console: Console) -> None:
    """Say what earlier calls on this folder reported and this one does not."""
    try:
        earlier = Results.from_json(file.read_text(encoding="utf-8")).cells
    except (OSError, RacroError):  # none, or of another version
        return
    gone = [cell for cell in earlier if results.cell(cell.benchmark, cell.system) is None]
    if gone:
        named = ", ".join(f"{cell.title}: {cell.system.label}" for cell in gone[:4]) + (", ..." if gone[4:] else "")
        console.say(
            f"results and report hold what this call asked for, no longer {printable(named)}; those answers are kept: "
            "ask for everything in one call to see it side by side"
        )


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
