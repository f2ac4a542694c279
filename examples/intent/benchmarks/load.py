"""The command `load`: the intent server under many connections, some of which misbehave."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import json
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks import record
from examples.intent import data
from examples.intent.serve import MAX_BODY_BYTES

console = Console(highlight=False, soft_wrap=True)
METHOD = (
    "load: the server in one process, the clients in another on the same cores, HTTP/1.1 kept alive on "
    "loopback, each connection asks again as soon as it is answered; latency is of valid requests, from the first byte "
    "sent to the last received; memory is the server's resident set."
)
BAD = {"malformed": 0.02, "wrong": 0.01, "oversized": 0.01, "slow": 0.01}
EXPECTED = {"good": {200}, "malformed": {422}, "wrong": {422}, "oversized": {413}, "slow": {200, 408}}


@dataclasses.dataclass(frozen=True)
class Load:
    """Ask the server of `examples/intent` many times at once, 5 % of it malformed, oversized or slow.

    Args:
        bundle: a trained classifier.
        requests: in all.
        connections: at once.
        pause: seconds that a slow request stands still in its middle.
        json: the result file; by default `load.json` in the folder of this hardware.
    """

    bundle: pathlib.Path
    requests: int = 100_000
    connections: int = 16
    pause: float = 0.5
    json: pathlib.Path | None = None

    def __call__(self) -> None:
        """Start the server, ask, end it, write the file."""
        port = _free_port()
        command = [sys.executable, "-m", "examples.intent", "serve", "--bundle", str(self.bundle), "--port", str(port)]
        server = subprocess.Popen(command, cwd=record.ROOT)
        try:
            row = asyncio.run(self._measure(port, server.pid))
            server.send_signal(signal.SIGTERM)
            row["exit_status"] = server.wait(30)
        finally:
            server.kill()
        for key, value in row.items():
            console.print(f"{key}  {value}", markup=False)
        path = record.write("load", [row], self.json, method=METHOD)
        console.print(f"results  {path}", markup=False)

    async def _measure(self, port: int, server: int) -> dict[str, Any]:
        """Return the row of the result file."""
        await _wait_until_ready(port)
        texts = [example.text for example in data.load().test]
        draw = random.Random(0)
        names = ["good", *BAD]
        kinds = draw.choices(names, [1 - sum(BAD.values()), *BAD.values()], k=self.requests)
        left = iter(kinds)
        seconds: list[float] = []
        seen: collections.Counter[tuple[str, int]] = collections.Counter()
        memory: list[int] = []

        async def connection() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for kind in left:
                began = time.perf_counter()
                status, closed = await self._ask(reader, writer, kind, draw.choice(texts))
                if kind == "good":
                    seconds.append(time.perf_counter() - began)
                seen[kind, status] += 1
                if sum(seen.values()) % (self.requests // 10) == 0:
                    memory.append(_resident(server))
                if closed:
                    writer.close()
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()

        began = time.perf_counter()
        await asyncio.gather(*(connection() for _ in range(self.connections)))
        wall = time.perf_counter() - began
        middle, late = np.quantile(seconds, (0.5, 0.99))
        return {
            "requests": self.requests,
            "connections": self.connections,
            "requests_per_second": self.requests / wall,
            "median_ms": 1e3 * float(middle),
            "p99_ms": 1e3 * float(late),
            "statuses": {f"{kind} {status}": count for (kind, status), count in sorted(seen.items())},
            "unexpected": sum(n for (kind, status), n in seen.items() if status not in EXPECTED[kind]),
            "resident_mb": [round(size / 1e6) for size in memory],
        }

    async def _ask(self, reader: Any, writer: Any, kind: str, text: str) -> tuple[int, bool]:
        """Send one request, and return its status, and whether the connection was closed."""
        body = json.dumps({"text": text}).encode()
        if kind == "malformed":
            body = body[: len(body) // 2]
        elif kind == "wrong":
            body = b'{"text": 3}'
        elif kind == "oversized":
            body = b" " * (MAX_BODY_BYTES + 1)
        head = f"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        half = len(body) // 2 if kind == "slow" else 0
        writer.write(head + body[:half])
        if half:
            await asyncio.sleep(self.pause)
        writer.write(body[half:])
        return await _answer(reader)


async def _answer(reader: Any) -> tuple[int, bool]:
    """Read an answer whole."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    size = next(int(line.split(":")[1]) for line in head.split("\r\n") if line.startswith("content-length"))
    await reader.readexactly(size)
    return int(head.split(" ")[1]), "connection: close" in head


async def _wait_until_ready(port: int) -> None:
    """Wait until the server listens."""
    for _ in range(600):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.1)
        else:
            writer.close()
            return
    raise RuntimeError("the server did not start within 60 s")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _resident(process: int) -> int:
    """Return the bytes of memory that a process holds."""
    lines = pathlib.Path(f"/proc/{process}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
