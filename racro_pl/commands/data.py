"""``racro-pl data``: which benchmarks there are, what of them is here, and what a file holds."""

from __future__ import annotations

from rich import box
from rich.markup import escape
from rich.table import Table

from racro_pl.commands.data_check import run_check, short_path
from racro_pl.commands.guard import FLAG
from racro_pl.commands.suggestions import CommandParser
from racro_pl.data.benchmarks import BENCHMARKS, Benchmark, TableBenchmark, find_benchmark
from racro_pl.data.benchmarks.loading import parse_benchmark
from racro_pl.data.benchmarks.sources.tsv import find_tsv
from racro_pl.data.readers.hub_files import cached
from racro_pl.evaluation.headlines import HEADLINES
from racro_pl.terminal import Console
from racro_pl.types import RacroError

DRAWN = ("figures", "reckoning")
"""Benchmarks that the program draws itself."""


def main(arguments: list[str]) -> int:
    """Run ``data list`` or ``data check``; returns the exit code."""
    parser = CommandParser(prog="racro-pl data", description="The benchmarks, and what a file of one holds.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", help="all benchmarks, and which files are here")
    check = commands.add_parser("check", help="read a benchmark and say what was found; exit code 1 if nothing usable")
    check.add_argument("name", metavar="NAME", nargs="?", help="such as mathvision, MathVista_MINI, or own")
    check.add_argument("path", metavar="PATH", nargs="?", help="file, folder or hub id (default: $LMUData, ~/LMUData)")
    check.add_argument("--config", metavar="FILE", help="the data set that a training configuration reads")
    check.add_argument(FLAG, action="store_true", help="let it name classes outside this package")
    check.add_argument("--split", help="default: what the file's name says, else the first that is there")
    options = parser.parse_args(arguments)
    console = Console()
    if options.command == "list":
        console.print(benchmark_table())
        return 0
    if (options.config is None) == (options.name is None):
        check.error("give either the NAME of a benchmark, or --config FILE")
    if options.config is not None:
        from racro_pl.commands.data_reader import configured_data

        return run_check(configured_data(options.config, arguments), options.config, options.split, console)
    asked = parse_benchmark(options.name)
    if asked.path and options.path:
        raise RacroError(f"two paths: {asked.path} and {options.path}; expected one")
    return run_check(find_benchmark(asked.benchmark), asked.path or options.path, options.split, console)


def benchmark_table() -> Table:
    """One row per benchmark and split."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("benchmark", "headline", "split"):
        table.add_column(column, no_wrap=True)
    table.add_column("questions", justify="right", no_wrap=True)
    table.add_column("VLMEvalKit file, hub id", overflow="fold")
    table.add_column("here", overflow="fold")
    for benchmark in BENCHMARKS.values():
        for place, (split, info) in enumerate(benchmark.splits.items()):
            first = (f"{benchmark.title}\n[dim]{benchmark.name}[/dim]", HEADLINES[benchmark.name].name)
            names = [f"{info.tsv}.tsv"] if info.tsv else []
            if benchmark.hub_id and place == 0:
                names.append(f"[dim]{benchmark.hub_id}[/dim]")
            where = "\n".join(names) or ("drawn" if benchmark.name in DRAWN else "own=PATH")
            questions = str(info.questions or "any")
            table.add_row(*(("", "") if place else first), split, questions, where, _here(benchmark, split))
    return table


def _here(benchmark: Benchmark, split: str) -> str:
    if not isinstance(benchmark, TableBenchmark):
        return "[green]built in[/green]" if benchmark.name in DRAWN else "[dim]-[/dim]"
    path = find_tsv(benchmark.tsv_names(split))
    if path is not None:
        return f"[green]{escape(short_path(path))}[/green]"
    return "[green]hub cache[/green]" if benchmark.hub_id and cached(benchmark.hub_id) else "[dim]-[/dim]"
