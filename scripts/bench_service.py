"""Load figures of `racro-pl serve pipeline`: requests per second and seconds to an answer, and the captioner's limit.

    python scripts/bench_service.py [--captioner … --reasoner … --mode …] [--clients 1 8 32] [--requests 200]

Starts the server on a free port of this machine and asks it about the figure world, every question once, so that no
caption is remembered. The limit is what the captioner writes by itself: the same texts in full batches, in this
process, without a server or a reasoner, before the server starts.
"""

from __future__ import annotations

import argparse
import base64
import json
import math
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from racro_pl.evaluation.settings import CaptionerSettings
from racro_pl.evaluation.writers import Task, open_writer
from racro_pl.figure_world.world import figure_questions
from racro_pl.pipeline import torch_device
from racro_pl.types import Question

BATCH = 16
"""Texts that the server writes together at most."""


def main() -> None:
    options = parse()
    questions = figure_questions("train", sum([*options.clients, *[options.requests] * (1 + len(options.clients))]))
    limit = captioner_limit(options, questions[: options.requests])
    print(f"captioner alone, batches of {BATCH}: {limit:.1f} requests/s", flush=True)
    rows = [{"clients": None, "requests_per_s": limit}]
    port, server = start(options)
    try:
        done = options.requests
        for clients in options.clients:
            load(port, questions[done : done + clients], clients)  # the first batches are slower
            done += clients
            rows.append(load(port, questions[done : done + options.requests], clients))
            done += options.requests
            print(line(rows[-1]), flush=True)
    finally:
        server.terminate()
        server.wait(30)
    if options.json:
        options.json.write_text(
            json.dumps({"mode": options.mode, "requests": options.requests, "rows": rows}, indent=2)
        )


def captioner_limit(options: argparse.Namespace, questions: list[Question]) -> float:
    """Requests per second whose texts the captioner could write, if it did nothing else."""
    settings = CaptionerSettings(options.captioner, "captioner", max_new_tokens=options.max_tokens, batch_size=BATCH)
    tasks: tuple[Task, ...] = ("caption",) if options.mode == "caption" else ("caption", "tentative")
    writer = open_writer(settings, torch_device("auto"))
    try:
        writer.check()
        list(writer.write([(question, task) for question in questions[:BATCH] for task in tasks]))
        started = time.perf_counter()
        list(writer.write([(question, task) for question in questions for task in tasks]))
        return len(questions) / (time.perf_counter() - started)
    finally:
        writer.close()


def start(options: argparse.Namespace) -> tuple[int, subprocess.Popen[bytes]]:
    """The server, once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "racro_pl", "serve", "pipeline", "--captioner", options.captioner, "--reasoner",
        options.reasoner, "--mode", options.mode, "--max-tokens", str(options.max_tokens), "--port", str(port),
    ]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name != "RACRO_API_KEY"}
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    deadline = time.monotonic() + 300
    while server.poll() is None and time.monotonic() < deadline:
        try:
            httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False)
            return port, server
        except httpx.TransportError:
            time.sleep(0.2)
    server.kill()
    raise SystemExit(f"the server did not start; try: {' '.join(command)}")


def load(port: int, questions: list[Question], clients: int) -> dict[str, object]:
    """Ask all questions, each of ``clients`` at once one after the other."""
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    with httpx.Client(timeout=330, trust_env=False, limits=httpx.Limits(max_connections=clients)) as client:

        def ask(question: Question) -> tuple[int, float]:
            image = "data:image/png;base64," + base64.b64encode(question.images[0].data or b"").decode()
            content = [{"type": "image_url", "image_url": {"url": image}}, {"type": "text", "text": question.text}]
            started = time.perf_counter()
            status = client.post(url, json={"messages": [{"role": "user", "content": content}]}).status_code
            return status, time.perf_counter() - started

        started = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            answers = list(pool.map(ask, questions))
        seconds = time.perf_counter() - started
    times = sorted(each for _, each in answers)
    return {
        "clients": clients,
        "requests_per_s": len(answers) / seconds,
        "p50_s": quantile(times, 0.5),
        "p99_s": quantile(times, 0.99),
        "statuses": dict(Counter(status for status, _ in answers)),
    }


def quantile(ordered: list[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed."""
    return ordered[math.ceil(len(ordered) * share) - 1]


def line(row: dict[str, object]) -> str:
    """A row of the table in docs/serve.md."""
    statuses = ", ".join(f"{count}x {status}" for status, count in dict(row["statuses"]).items())  # type: ignore[call-overload]
    return (
        f"{row['clients']} clients: {row['requests_per_s']:.1f} requests/s, p50 {row['p50_s']:.2f} s, "
        f"p99 {row['p99_s']:.2f} s ({statuses})"
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captioner", default="embedded:figure-captioner")
    parser.add_argument("--reasoner", default="embedded:figure-reasoner")
    parser.add_argument("--mode", choices=("caption", "caption+tentative"), default="caption+tentative")
    parser.add_argument("--max-tokens", type=int, default=64, help="of each text (default: %(default)s)")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32], help="at once (default: 1 8 32)")
    parser.add_argument("--requests", type=int, default=200, help="for each number of clients (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
