"""``racro-pl doctor``: check what a run needs: a table with what was found and what to do."""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich import box
from rich.markup import escape
from rich.table import Table

from racro_pl.commands.guard import HELP
from racro_pl.commands.quiet import quiet_libraries
from racro_pl.commands.sight import sight
from racro_pl.commands.suggestions import CommandParser
from racro_pl.pretrained.folder import first_line
from racro_pl.terminal import Console
from racro_pl.types import RacroError

if TYPE_CHECKING:
    from racro_pl.data.datamodule import RacroDataModule
    from racro_pl.training.module import RacroModule

Status = Literal["ok", "warn", "fail"]
STYLES = {"ok": "green", "warn": "yellow", "fail": "red bold"}
PACKAGES = ("torch", "transformers", "lightning", "peft", "bitsandbytes", "vllm")
COMPROMISED = {"lightning": ("2.6.2", "2.6.3")}
"""Releases that were published by attackers (GHSA-w37p-236h-pfx3)."""
MIN_FREE_GB = 10.0
"""Checkpoints hold adapters only; logs, caches and reports need room all the same."""


@dataclass(frozen=True)
class Finding:
    """One line of the table."""

    what: str
    status: Status
    found: str
    advice: str = ""
    details: tuple[str, ...] = ()
    """Lines to print below the table."""


def main(arguments: list[str]) -> int:
    """Run ``doctor``; returns the exit code: 1 when something fails."""
    options = _parse(arguments)
    quiet_libraries()
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    console = Console()
    findings: list[Finding] = []
    with console.status("looking ..."):
        for check in _checks(options):
            findings += check()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("", "what", "found", "what to do"):
        table.add_column(column, no_wrap=column in ("", "what"), overflow="fold")
    for finding in findings:
        mark = f"[{STYLES[finding.status]}]{finding.status}[/]"
        table.add_row(mark, escape(finding.what), escape(finding.found), escape(finding.advice))
    console.print(table)
    for line in [line for finding in findings for line in finding.details]:
        console.say(line)
    failed = sum(finding.status == "fail" for finding in findings)
    warned = sum(finding.status == "warn" for finding in findings)
    console.print(f"{failed} failed, {warned} to look at, {len(findings) - failed - warned} fine")
    return 1 if failed else 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = CommandParser(prog="racro-pl doctor", description=f"{__doc__} {HELP}")
    parser.add_argument("--config", metavar="FILE", help="a configuration of `fit`: its captioner, reasoner and data")
    parser.add_argument(
        "--allow-imports", action="store_true", help="let the configuration name classes of other packages"
    )
    parser.add_argument("--captioner", metavar="PATH", help="model folder, hub id or run to check")
    parser.add_argument("--reasoner", metavar="URL", help="OpenAI-compatible server to check")
    return parser.parse_args(arguments)


def _checks(options: argparse.Namespace) -> Iterator[Callable[[], list[Finding]]]:
    yield lambda: [Finding("python", "ok", platform.python_version())]
    yield check_packages
    yield check_devices
    yield check_disk
    if options.captioner:
        yield lambda: [attempt("captioner", lambda: _captioner(options.captioner))]
    if options.reasoner:
        yield lambda: [attempt("reasoner", lambda: _reasoner(options.reasoner))]
    if options.config:
        yield lambda: check_config(options.config, allow_imports=options.allow_imports)


def check_packages() -> list[Finding]:
    """Versions of what the program stands on; vLLM may live elsewhere."""
    findings = []
    for name in PACKAGES:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            if name == "vllm":
                findings.append(Finding(name, "ok", "not in this environment", "a server elsewhere will do"))
            else:
                findings.append(Finding(name, "fail", "missing", "pip install racro-pl"))
            continue
        if version in COMPROMISED.get(name, ()):
            findings.append(Finding(name, "fail", version, "a compromised release: install another at once"))
        else:
            findings.append(Finding(name, "ok", version))
    return findings


def check_devices() -> list[Finding]:
    """GPUs with their free memory, and whether bitsandbytes' 4-bit kernel gives a right product here."""
    import torch

    findings = []
    for index in range(torch.cuda.device_count()):
        try:
            free, total = torch.cuda.mem_get_info(index)
        except RuntimeError as error:  # asking takes memory itself, and a card may be another process's alone
            findings.append(Finding(f"gpu {index}", "fail", first_line(error), "full, or in use by another process?"))
            continue
        name = f"{torch.cuda.get_device_name(index)}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
        advice = "another process uses it" if free < 0.8 * total else ""
        findings.append(Finding(f"gpu {index}", "warn" if advice else "ok", name, advice))
    if not findings:
        findings.append(Finding("gpu", "warn", "none", "small models only: everything runs on the CPU"))
    return [*findings, attempt("4-bit", lambda: _four_bit("cuda" if torch.cuda.is_available() else "cpu"))]


def _four_bit(device: str) -> str:
    import torch
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    weights = torch.randn(64, 64, device=device)
    packed, state = quantize_4bit(weights, quant_type="nf4")
    error = float((dequantize_4bit(packed, state) - weights).abs().mean())
    if not error < 0.2:  # NF4 of normal numbers: about 0.07
        raise RacroError(f"bitsandbytes gives wrong numbers on {device} (mean error {error:.2f}): reinstall it")
    return f"NF4 works on {device}"


def check_disk() -> list[Finding]:
    """Free space where runs go."""
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    enough = free >= MIN_FREE_GB
    return [Finding("disk", "ok" if enough else "warn", f"{free:.0f} GB free here", "" if enough else "make room")]


def _captioner(path: str) -> str:
    import torch

    from racro_pl.evaluation.captioner_source import find_policy, is_url
    from racro_pl.evaluation.settings import CaptionerSettings
    from racro_pl.evaluation.writers import open_writer

    settings = CaptionerSettings(path, "captioner")
    with closing(open_writer(settings, torch.device("cpu"))) as writer:
        writer.probe()
    if is_url(path):
        return f"{path} answers"
    policy = find_policy(settings, on_gpu=torch.cuda.is_available())
    found = f"{policy.path}" + (f" with {policy.adapter}" if policy.adapter else "")
    return f"{found}; {sight(policy)}"


def _reasoner(url: str) -> str:
    from racro_pl.reward import HttpReasoner

    with closing(HttpReasoner(url)) as client:
        client.check()
    return f"{client.model} answers at {client.url}"


def check_config(path: str, *, allow_imports: bool = False) -> list[Finding]:
    """The parts that a configuration of ``fit`` names, without training: prompts, reasoner, data, memory."""
    from racro_pl.commands.lightning import parts_of

    parts = []

    def build() -> str:
        parts.append(parts_of(path, allow_imports=allow_imports))
        return path

    findings = [attempt("config", build)]
    if not parts:
        return findings
    module, data = parts[0]

    def split(name: Literal["train", "validation"]) -> str:
        result = data.reader.read(name)
        dropped = f", {result.dropped.total()} left out ({dict(result.dropped)})" if result.dropped else ""
        if name == "train" and len(result.questions) < data.questions_per_step:
            raise RacroError(
                f"{len(result.questions)} questions, fewer than one step's {data.questions_per_step}{dropped}"
            )
        return f"{len(result.questions)} questions{dropped}"

    def reasoner() -> str:
        with closing(module.scorer) as scorer:
            scorer.check()
        return "answers"

    def captioner() -> str:
        words = f"{module.policy_settings.path}: processor with {module.encoder.tokenizer.vocab_size} words"
        return f"{words}; {sight(module.policy_settings)}"

    return [
        *findings,
        attempt("captioner", captioner),
        attempt("reasoner", reasoner),
        attempt("train data", lambda: split("train")),
        attempt("validation data", lambda: split("validation")),
        check_memory(module, data),
    ]


def check_memory(module: RacroModule, data: RacroDataModule) -> Finding:
    """The memory ledger of a configuration, beside the first GPU where there is one."""
    import torch

    from racro_pl.policy.families import family_of
    from racro_pl.policy.memory.ledger import GIB, OVERHEAD, planning_config
    from racro_pl.training.memory import advise, plan_of

    try:
        undescribed = family_of(planning_config(module.policy_settings.path).model_type).undescribed
        if undescribed is not None:
            reason = f"its formulas are those of the shared-prefix path, and {undescribed}"
            return Finding("memory", "warn", "not computed", reason)
        plan = plan_of(module, data)
    except RacroError as error:
        return Finding("memory", "fail", "", str(error))
    peak, advice = plan.ledger.peak, ""
    found = f"peak of {peak / GIB:.1f} GiB by the ledger below"
    if torch.cuda.is_available():
        try:
            card = torch.cuda.mem_get_info(0)[1]
        except RuntimeError as error:
            return Finding("memory", "fail", f"{found}; {first_line(error)}", "see gpu 0 above", tuple(plan.lines()))
        found += f", about {OVERHEAD / GIB:.1f} besides, {card / GIB:.1f} on the card"
        if peak + OVERHEAD > card:
            advice = "does not fit; what costs least first: " + "; ".join(advise(plan, int(card - OVERHEAD)))
    return Finding("memory", "warn" if advice else "ok", found, advice, tuple(plan.lines()))


def attempt(what: str, check: Callable[[], str]) -> Finding:
    """A check that says what it found, or raises what is wrong and what to do."""
    try:
        return Finding(what, "ok", check())
    except RacroError as error:
        return Finding(what, "fail", "", str(error))
    except (OSError, ImportError, ValueError, RuntimeError) as error:
        return Finding(what, "fail", type(error).__name__, first_line(error))
