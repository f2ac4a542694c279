"""Slow and malformed connections, and addresses that cannot be bound."""

import contextlib
import os
import socket
import threading
import time

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from examples.intent import connections
from examples.intent.errors import UserError

LARGE = 1 << 25
GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


async def echo(request: Request):
    return PlainTextResponse(str(len(await request.body())))


ROUTES = [Route("/", echo, methods=["GET", "POST"]), Route("/large", PlainTextResponse(b"x" * LARGE), methods=["GET"])]


@contextlib.contextmanager
def serving(host="127.0.0.1", port=0):
    """Run a server and yield its address."""
    with connections.listen(host, port) as listener:
        server = connections.server(Starlette(routes=ROUTES))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield listener.getsockname()[:2]
        finally:
            server.should_exit = True
            thread.join()


def read_all(connection):
    """Return what arrives until the connection is closed or reset."""
    received = b""
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        while part := connection.recv(1 << 16):
            received += part
    return received


@pytest.mark.parametrize(
    ("sent", "repeated"),
    [
        (b"", b""),
        (b"GET / HTTP/1.1\r\nhost: x\r\nx: ", b"y"),
        (b"GET /", b"a"),
        (b"", b"\r\n"),
        (GET, b"\r\n"),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n", b"y"),
        (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n"),
    ],
    ids=["silent", "header", "path", "newlines", "newlines after a response", "body", "trailers"],
)
def test_a_request_that_never_ends_is_closed(monkeypatch, sent, repeated):
    monkeypatch.setattr(connections, "HEADER_TIMEOUT", 0.3)
    monkeypatch.setattr(connections, "RESPONSE_TIMEOUT", 0.3)
    with serving() as address, socket.create_connection(address, timeout=10) as connection:
        connection.sendall(sent)
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            for _ in range(200):  # a client that sends as long as the connection is open
                connection.sendall(repeated)
                connection.settimeout(0.05)
                with contextlib.suppress(TimeoutError):
                    if not connection.recv(1 << 16):
                        return
        assert not read_all(connection)


def test_a_response_that_is_not_read_is_closed(monkeypatch):
    monkeypatch.setattr(connections, "HEADER_TIMEOUT", 0.3)
    with serving() as address, socket.create_connection(address, timeout=10) as connection:
        connection.sendall(GET.replace(b"/", b"/large", 1))
        time.sleep(0.6)
        assert len(read_all(connection)) < LARGE


@pytest.mark.parametrize("part", [b"x: " + b"y" * 70_000, b"x: y\r\n" * 20_000, b"y" * 200_000])
def test_a_request_with_a_large_head_is_closed(part):
    with serving() as address, socket.create_connection(address, timeout=10) as connection:
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n" + part)
        assert b"200 OK" not in read_all(connection)


def test_a_large_body_does_not_count_as_head_and_connections_are_kept():
    with serving() as address, socket.create_connection(address, timeout=10) as connection:
        for size in (3, 1 << 20):
            connection.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size + b"y" * size)
            received = b""
            while not received.endswith(b"\r\n\r\n" + str(size).encode()):
                received += connection.recv(1 << 16)
            assert received.startswith(b"HTTP/1.1 200 OK")


def test_one_connection_too_many_is_answered_with_503(monkeypatch):
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 2)
    with serving() as address, contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.create_connection(address, timeout=10)) for _ in range(2)]
        held[1].sendall(GET)
        assert held[1].recv(1 << 16).startswith(b"HTTP/1.1 200 OK")
        with socket.create_connection(address, timeout=10) as more:
            assert read_all(more).startswith(b"HTTP/1.1 503")
        held[0].close()
        time.sleep(0.1)
        with socket.create_connection(address, timeout=10) as again:
            again.sendall(GET)
            assert again.recv(1 << 16).startswith(b"HTTP/1.1 200 OK")


def test_ipv6():
    try:
        listener = connections.listen("::1", 0)
    except UserError:
        pytest.skip("no IPv6 on this machine")
    with listener:
        port = listener.getsockname()[1]
        assert connections.address(listener) == f"http://[::1]:{port}/"
    with serving("::1") as address, socket.create_connection(address, timeout=10) as connection:
        connection.sendall(GET)
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize(
    ("host", "port", "words"),
    [
        ("127.0.0.1", 70_000, "--port 70000: a port is 0 to 65535"),
        ("127.0.0.1", -1, "--port -1: a port is 0 to 65535"),
        ("no such host", 0, "--host no such host: "),
        ("a..b", 0, "--host a..b: "),
        ("a\0b", 0, "--host a\0b: "),
        ("192.0.2.1", 0, "cannot listen there"),
    ],
)
def test_listen_reports_an_invalid_address_in_one_line(host, port, words):
    with pytest.raises(UserError) as caught:
        connections.listen(host, port)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_listen_reports_a_port_in_use_and_a_missing_permission(monkeypatch):
    with connections.listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(UserError, match=f"--port {port}: already in use"):
            connections.listen("127.0.0.1", port)

    def deny(*args, **options):
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(socket, "create_server", deny)
    with pytest.raises(UserError, match="--port 80: not permitted; ports below 1024"):
        connections.listen("127.0.0.1", 80)
