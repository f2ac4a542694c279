"""The server's page in a real browser, headless."""

import shutil
import socket
import threading
import time

import pytest
import uvicorn
from playwright.sync_api import sync_playwright

from examples.intent.serve import application

from .test_serve import classifier  # noqa: F401

CHROMIUM = shutil.which("chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]


@pytest.fixture
def address(classifier):  # noqa: F811
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(application(classifier), port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join()


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")
def test_the_intent_forms_token_by_token_as_one_types(address):
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()
        failures = []
        page.on("pageerror", lambda failure: failures.append(failure))
        page.goto(address)
        page.fill("#text", "what time is it ?")
        page.wait_for_function("document.querySelectorAll('#steps tr').length === 5")
        assert page.inner_text("#steps tr:nth-child(2) .token") == "time"
        intent = page.inner_text("#steps tr:last-child .intent")
        assert page.inner_text("#answer").startswith(intent)
        page.fill("#text", "<b>bold</b>")
        page.wait_for_function("document.querySelectorAll('#steps tr').length > 5")
        assert page.locator("#steps b").count() == 0
        page.fill("#text", "\u0000 ")
        page.wait_for_function("document.querySelectorAll('#steps tr').length === 0")
        assert not failures
        browser.close()
