"""A reasoner that takes its time: an OpenAI-compatible server in a process of its own, any number of calls at once.

python scripts/step_bench/server.py SECONDS     prints its address
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from typing import Any


def client(url: str) -> Any:
    """Our reasoner for the server at ``url``."""
    from racro_pl.reward import HttpReasoner

    return HttpReasoner(url, model="bench", max_tokens=16, concurrency=64)


async def serve(seconds: float) -> None:
    draw = random.Random(0)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = next((int(x.split(":")[1]) for x in head.split("\r\n") if x.startswith("content-length")), 0)
                await reader.readexactly(length)
                if head.startswith("get"):
                    body: dict[str, Any] = {"object": "list", "data": [{"id": "bench", "object": "model"}]}
                else:
                    await asyncio.sleep(seconds)
                    answer = rf"\boxed{{{draw.choice(['red', 'blue'])}}}"
                    message = {"role": "assistant", "content": answer}
                    body = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
                data = json.dumps(body).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
                writer.write(b"Content-Length: %d\r\n\r\n" % len(data) + data)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, backlog=1024)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1])))
