"""What pytest's XML report says, as JSON: counts, failures, and the numbers that tests recorded."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

MESSAGE = 400
"""Characters kept of a failure's message."""


def read_junit(path: Path) -> dict[str, Any]:
    """Of a report that pytest wrote itself on this machine."""
    cases = list(ElementTree.parse(path).getroot().iter("testcase"))
    failed: dict[str, str] = {}
    recorded: dict[str, dict[str, str]] = {}
    skipped = 0
    for case in cases:
        name = f"{case.get('classname')}::{case.get('name')}"
        problem = next((case.find(kind) for kind in ("failure", "error") if case.find(kind) is not None), None)
        if problem is not None:
            failed[name] = (problem.get("message") or "")[:MESSAGE]
        skipped += case.find("skipped") is not None
        properties = {item.get("name", ""): item.get("value", "") for item in case.iter("property")}
        if properties:
            recorded[name] = properties
    return {
        "passed": len(cases) - len(failed) - skipped, "failed": failed, "skipped": skipped, "recorded": recorded,
        "slowest": {
            f"{case.get('name')}": float(case.get("time", 0))
            for case in sorted(cases, key=lambda case: -float(case.get("time", 0)))[:5]
        },
    }  # fmt: skip
