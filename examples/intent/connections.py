"""Listening, and connections that end: uvicorn has no limit on the time or the size of a request's head."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .errors import UserError

MOST_CONNECTIONS = 512  # fewer than the files that a process may open, 1024 by default
MOST_HEAD = 1 << 16  # bytes of a request that are not its body: request line, headers, chunk sizes, trailers
HEAD_SECONDS = 10.0  # from the connection, or the answer before, until the headers are there
ANSWER_SECONDS = 60.0  # from then until the answer is sent whole
GRACE_SECONDS = 5  # that a stopping server waits for what has begun
BUSY = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nretry-after: 1\r\nconnection: close\r\n\r\n"


class Connection(HttpToolsProtocol):
    """uvicorn's connection, cut when it takes too long, sends too large a head, or is one too many.

    Whatever is sent or not sent, a deadline is running: one until the headers are there, then one until the answer is
    sent.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for headers, unless there are too many connections."""
        super().connection_made(transport)
        self._head = 0
        self._deadline = self.loop.call_later(HEAD_SECONDS, transport.abort)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.write(BUSY)
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._deadline.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what is not body."""
        self._head += len(data)
        super().data_received(data)
        if self._head > MOST_HEAD:
            self.transport.abort()

    def on_body(self, body: bytes) -> None:
        """Count what is not body."""
        self._head -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Count from here on for the next request."""
        self._head = 0
        super().on_message_complete()

    def on_headers_complete(self) -> None:
        """Begin to wait for the answer."""
        self._wait(ANSWER_SECONDS)
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Begin to wait for the next headers."""
        self._wait(HEAD_SECONDS)
        super().on_response_complete()

    def _wait(self, seconds: float) -> None:
        self._deadline.cancel()
        self._deadline = self.loop.call_later(seconds, self.transport.abort)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket of IPv4 or IPv6; raises UserError that says in a sentence why there can be none."""
    if not 0 <= port < 1 << 16:
        raise UserError(f"--port {port}: a port is 0 to 65535")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, place = min(found)  # IPv4 where a name has both
        return socket.create_server(place, family=family, backlog=MOST_CONNECTIONS)
    except (socket.gaierror, ValueError) as error:
        raise UserError(f"--host {host}: no address: {error.args[-1]}") from error
    except PermissionError as error:
        raise UserError(f"--port {port}: not permitted; ports below 1024 need the rights of root") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"--port {port}: taken already. Take another one, or 0 for any") from error
        raise UserError(f"--host {host}: cannot listen there: {os.strerror(error.errno or 0)}") from error


def address(listener: socket.socket) -> str:
    """Return the URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/" if listener.family == socket.AF_INET6 else f"http://{host}:{port}/"


def server(app: Starlette, **options: Any) -> uvicorn.Server:
    """Return the server of an application."""
    config = uvicorn.Config(
        app, http=Connection, ws="none", log_level="error", access_log=False, proxy_headers=False,
        timeout_graceful_shutdown=GRACE_SECONDS, **options
    )  # fmt: skip
    return uvicorn.Server(config)


def run(app: Starlette, listener: socket.socket) -> None:
    """Answer until SIGINT or SIGTERM."""
    with contextlib.suppress(KeyboardInterrupt):
        server(app).run(sockets=[listener])
