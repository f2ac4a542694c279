"""The page of the server in a headless browser."""

import contextlib
import dataclasses
import shutil
import threading
import time

import pytest
from playwright.sync_api import sync_playwright

from examples.intent import connections
from examples.intent.serve import application

from .test_serve import classifier  # noqa: F401

CHROMIUM = shutil.which("chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]


@contextlib.contextmanager
def serving(classifier):  # noqa: F811
    """Run a server and yield its address."""
    with connections.listen("127.0.0.1", 0) as listener:
        server = connections.server(application(classifier))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield connections.address(listener)
        finally:
            server.should_exit = True
            thread.join()


@contextlib.contextmanager
def page_of(classifier):  # noqa: F811
    """Yield a page in a browser. The test fails if its scripts raise an error or open a dialog."""
    failures = []
    with serving(classifier) as address, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()
        page.on("pageerror", lambda failure: failures.append(failure))
        page.on("dialog", lambda dialog: (failures.append(dialog.message), dialog.dismiss()))
        page.goto(address)
        yield page
        browser.close()
    assert not failures


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")
def test_labels_and_texts_are_not_parsed_as_markup(classifier):  # noqa: F811
    labels = ("<img src=x onerror=alert(1)>", "<script>alert(2)</script>", "\u202e&lt;b&gt;\n\x1b[31m")
    with page_of(dataclasses.replace(classifier, labels=labels)) as page:
        page.fill("#text", "time <img src=y onerror=alert(3)> it &amp; </td><svg onload=alert(4)>")
        page.wait_for_function("document.querySelectorAll('#steps tr').length > 10")
        assert page.locator("img, #steps script, svg, b").count() == 0
        shown = page.locator("#steps .intent").all_text_contents()
        assert set(shown) <= set(labels)
        assert page.locator("#answer").text_content().startswith(shown[-1])
        assert page.locator("#steps .token").all_text_contents()[:3] == ["time", "<", "img"]


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")
def test_the_page_shows_a_prediction_after_each_token(classifier):  # noqa: F811
    with page_of(classifier) as page:
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
