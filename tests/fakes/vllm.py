"""A small program in vLLM's place, and helpers that look at what is left of its processes."""

import sys
import time
from pathlib import Path

# Called as `python -m vllm... --port N ...`. It starts two processes, as vLLM does; one leaves the process group.
FAKE_VLLM = """#!{python}
import http.server, os, signal, socketserver, subprocess, sys, threading, time
mode, pid_file = os.environ["FAKE_MODE"], os.environ["FAKE_PIDS"]
if mode == "die":
    print("line before"); print("ValueError: no such thing", file=sys.stderr); sys.exit(3)
if mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
sleepers = [subprocess.Popen(["sleep", "600"], start_new_session=own) for own in (False, True)]
with open(pid_file + ".tmp", "w") as file:
    print(os.getpid(), *[child.pid for child in sleepers], file=file)
os.rename(pid_file + ".tmp", pid_file)
if mode == "silent":
    print("loading for ever", flush=True); time.sleep(600)
def crash():
    time.sleep(1); os._exit(9)
if mode == "crash_later":
    threading.Thread(target=crash).start()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        key = os.environ.get("VLLM_API_KEY")
        known = not key or self.headers.get("authorization") == "Bearer " + key
        guarded = self.path.startswith("/v1")
        code = 200 if self.path == "/health" or (guarded and known) else 401 if guarded else 404
        body = b'{{"data": []}}' if code == 200 else b"{{}}"
        self.send_response(code); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def address_string(self):
        return "client"
class UnixServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
if "--uds" in sys.argv:
    UnixServer(sys.argv[sys.argv.index("--uds") + 1], Handler).serve_forever()
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def write_fake_vllm(folder: Path) -> Path:
    """An "interpreter" that behaves as its FAKE_MODE says; it writes its process ids to the file FAKE_PIDS."""
    python = folder / "fake_python"
    python.write_text(FAKE_VLLM.format(python=sys.executable))
    python.chmod(0o755)
    return python


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # gone before the file was opened, or between that and the reading
        return False
    return state != "Z"


def recorded_pids(tmp_path: Path) -> list[int]:
    """The fake server's own process id and those of the two processes it has started."""
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 3
    return pids


def wait_until_gone(pids: list[int], deadline_s: float = 120.0) -> None:
    end = time.monotonic() + deadline_s
    while any(map(is_alive, pids)):
        assert time.monotonic() < end, f"still running: {[pid for pid in pids if is_alive(pid)]}"
        time.sleep(0.05)
