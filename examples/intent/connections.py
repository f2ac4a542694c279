"""Sockets and connections, with limits that uvicorn lacks: the time and the size of the head of a request."""

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

MAX_CONNECTIONS = 512  # less than the default limit on open files, 1024
MAX_HEAD_BYTES = 1 << 16  # of a request without its body: request line, headers, chunk sizes, trailers
HEADER_TIMEOUT = 10.0  # seconds from the connection, or the previous response, until the headers are complete
RESPONSE_TIMEOUT = 60.0  # seconds from the headers until the response is sent
SHUTDOWN_TIMEOUT = 5  # seconds that a stopping server waits for open requests
BUSY = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nretry-after: 1\r\nconnection: close\r\n\r\n"


class Connection(HttpToolsProtocol):
    """A uvicorn connection that is closed when it is too slow, its head is too large, or there are too many.

    A deadline is always set: first for the headers, then for the response.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Set the deadline for the headers, or reject the connection if there are too many."""
        super().connection_made(transport)
        self._head = 0
        self._deadline = self.loop.call_later(HEADER_TIMEOUT, transport.abort)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.write(BUSY)
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the deadline."""
        self._deadline.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count the bytes of the head, and close the connection if there are too many."""
        self._head += len(data)
        super().data_received(data)
        if self._head > MAX_HEAD_BYTES:
            self.transport.abort()

    def on_body(self, body: bytes) -> None:
        """Subtract the bytes of the body from the count."""
        self._head -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Reset the count for the next request."""
        self._head = 0
        super().on_message_complete()

    def on_headers_complete(self) -> None:
        """Set the deadline for the response."""
        self._wait(RESPONSE_TIMEOUT)
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Set the deadline for the headers of the next request."""
        self._wait(HEADER_TIMEOUT)
        super().on_response_complete()

    def _wait(self, seconds: float) -> None:
        self._deadline.cancel()
        self._deadline = self.loop.call_later(seconds, self.transport.abort)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket of IPv4 or IPv6. Raise UserError with the reason if that is impossible."""
    if not 0 <= port < 1 << 16:
        raise UserError(f"--port {port}: a port is 0 to 65535")
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, socket_address = min(infos)  # prefers IPv4
        return socket.create_server(socket_address, family=family, backlog=MAX_CONNECTIONS)
    except (socket.gaierror, ValueError) as error:
        raise UserError(f"--host {host}: no address: {error.args[-1]}") from error
    except PermissionError as error:
        raise UserError(f"--port {port}: not permitted; ports below 1024 need root privileges") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"--port {port}: already in use. Choose another port, or 0 for any free one") from error
        raise UserError(f"--host {host}: cannot listen there: {os.strerror(error.errno or 0)}") from error


def address(listener: socket.socket) -> str:
    """Return the URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/" if listener.family == socket.AF_INET6 else f"http://{host}:{port}/"


def server(app: Starlette, **options: Any) -> uvicorn.Server:
    """Return a uvicorn server for an application."""
    config = uvicorn.Config(
        app, http=Connection, ws="none", log_level="error", access_log=False, proxy_headers=False,
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT, **options
    )  # fmt: skip
    return uvicorn.Server(config)


def run(app: Starlette, listener: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM."""
    with contextlib.suppress(KeyboardInterrupt):
        server(app).run(sockets=[listener])
