"""A pytest plugin that writes down every test when it ends, and what such a report says: one that is cut off too.

pytest -p scripts.gpu_minutes.report_plugin --test-report FILE.jsonl
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MESSAGE = 400
"""Characters kept of a failure's message."""
SLOWEST = 5


class Writer:
    """One line per phase of a test that passed judgement on it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w")

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Called for set-up, call and tear-down; with workers, in the process that leads them."""
        if report.when != "call" and report.passed:
            return
        crash = getattr(report.longrepr, "reprcrash", None)
        row = {
            "test": report.nodeid, "outcome": report.outcome, "seconds": round(report.duration, 2),
            "recorded": dict(report.user_properties),
            "message": str(crash.message if crash else report.longrepr)[:MESSAGE] if report.failed else "",
            "place": f"{crash.path}:{crash.lineno}" if crash else "",
        }  # fmt: skip
        self._file.write(json.dumps(row, default=str) + "\n")
        self._file.flush()


def pytest_addoption(parser: Any) -> None:
    parser.addoption("--test-report", default="", help="where each test is written down when it ends")


def pytest_configure(config: Any) -> None:
    path = config.getoption("--test-report")
    if path and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Writer(Path(path)))


def read_report(path: Path) -> dict[str, Any]:
    """Counts, failures with their messages, the numbers that tests recorded, and the slowest tests."""
    rows = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    return {
        "passed": sum(row["outcome"] == "passed" for row in rows),
        "skipped": sum(row["outcome"] == "skipped" for row in rows),
        "failed": {row["test"]: f"{row['message']} ({row['place']})" for row in rows if row["outcome"] == "failed"},
        "recorded": {row["test"]: row["recorded"] for row in rows if row["recorded"]},
        "slowest": {row["test"]: row["seconds"] for row in sorted(rows, key=lambda row: -row["seconds"])[:SLOWEST]},
    }
