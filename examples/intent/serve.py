"""The classifier over HTTP: POST /predict and /unfold, GET /health and /openapi.json, and a page to try it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from .classifier import BATCHES, BOUNDARIES, Answer, Classifier, with_slots
from .errors import UserError
from .text import tokenize

LARGEST = 1 << 20  # bytes of a request
SLOWEST = 5.0  # seconds that a request may take to arrive
MOST_TEXTS = 256  # of a request, and of a batch
MOST_WAITING = 2048  # texts
MOST_TOKENS = 64  # of a text that is unfolded
HERE = Path(__file__).parent / "static"


class Refusal(Exception):
    """An answer that is none: a status and a sentence."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class Batcher:
    """Calls `work` with what has gathered while it was at work before: one batch at a time, in a thread of its own.

    Args:
        work: from a list to as many results.
    """

    def __init__(self, work: Callable[[list[Any]], Any]) -> None:
        self._work = work
        self._gathered: list[tuple[list[Any], asyncio.Future[Any]]] = []
        self._waiting = 0
        self._woken = asyncio.Event()
        self._thread = ThreadPoolExecutor(1)

    async def __call__(self, items: list[Any]) -> Any:
        """Give the results of some items; raises Refusal 429 where too many are waiting."""
        if self._waiting + len(items) > MOST_WAITING:
            raise Refusal(429, f"{self._waiting} texts are waiting already. Try again in a second.")
        future = asyncio.get_running_loop().create_future()
        self._gathered.append((items, future))
        self._waiting += len(items)
        self._woken.set()
        try:
            return await future
        finally:
            self._waiting -= len(items)

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await self._woken.wait()
            batch = self._take()
            items = [item for items, _ in batch for item in items]
            try:
                results = await asyncio.get_running_loop().run_in_executor(self._thread, self._work, items)
            except Exception as failure:  # one who waits hears of it
                for _, future in batch:
                    if not future.done():
                        future.set_exception(failure)
                continue
            start = 0
            for part, future in batch:
                if not future.done():  # a client that has gone
                    future.set_result(results[start : start + len(part)])
                start += len(part)

    def _take(self) -> list[tuple[list[Any], asyncio.Future[Any]]]:
        """Take what fits into one batch."""
        size, count = 0, 0
        for items, _ in self._gathered:
            if count and size + len(items) > MOST_TEXTS:
                break
            size, count = size + len(items), count + 1
        batch, self._gathered = self._gathered[:count], self._gathered[count:]
        if not self._gathered:
            self._woken.clear()
        return batch


@dataclasses.dataclass(frozen=True)
class Question:
    """What `POST /predict` is asked."""

    texts: list[str]
    single: bool
    top_k: int
    threshold: float | None

    @classmethod
    def of(cls, body: Any) -> Question:
        """Read a JSON body; raises Refusal 422 that says what is wrong with it."""
        if not isinstance(body, dict) or ("text" in body) == ("texts" in body):
            raise Refusal(422, 'needs {"text": "..."} or {"texts": ["...", ...]}')
        if unknown := sorted(body.keys() - {"text", "texts", "top_k", "threshold"}):
            raise Refusal(422, f"unknown fields {unknown}; there are text, texts, top_k and threshold")
        single = "text" in body
        texts = [body["text"]] if single else body["texts"]
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise Refusal(422, "text must be a string, and texts a list of strings")
        if not 0 < len(texts) <= MOST_TEXTS:
            raise Refusal(422, f"texts must be 1 to {MOST_TEXTS}; got {len(texts)}")
        top_k, threshold = body.get("top_k", 3), body.get("threshold")
        if type(top_k) is not int or top_k < 1:
            raise Refusal(422, f"top_k must be an integer, 1 or more; got {top_k!r}")
        if threshold is not None and (type(threshold) not in (int, float) or not np.isfinite(threshold)):
            raise Refusal(422, f"threshold must be a number, or null; got {threshold!r}")
        return cls(texts, single, top_k, threshold)


def application(classifier: Classifier) -> Starlette:
    """Make the application."""
    batcher = Batcher(lambda sequences: list(zip(*classifier.hear(sequences), strict=True)))

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await asyncio.to_thread(warm, classifier)
        worker = asyncio.create_task(batcher.run())
        yield
        worker.cancel()

    async def predict(request: Request) -> Response:
        question = Question.of(await body_of(request))
        names = ["text"] if question.single else [f"texts[{i}]" for i in range(len(question.texts))]
        heard = await batcher([encode(classifier, *pair) for pair in zip(question.texts, names, strict=True)])
        logits, tags = zip(*heard, strict=True)
        answers = classifier.name(np.stack(logits), most=question.top_k, threshold=question.threshold)
        answers = [_json(answer) for answer in with_slots(answers, question.texts, tags)]
        return JSONResponse(answers[0] if question.single else {"answers": answers})

    async def unfold(request: Request) -> Response:
        question = Question.of(await body_of(request))
        if not question.single:
            raise Refusal(422, 'needs {"text": "..."}')
        ids, tokens = encode(classifier, question.texts[0], "text"), tokenize(question.texts[0])
        if len(ids) > MOST_TOKENS:
            raise Refusal(422, f"text: has room for {MOST_TOKENS} tokens; got {len(ids)}")
        prefixes = await batcher([ids[:end] for end in range(1, len(ids) + 1)])
        logits, tags = zip(*prefixes, strict=True)
        answers = classifier.name(np.stack(logits), most=question.top_k, threshold=question.threshold)
        answers[-1:] = with_slots(answers[-1:], question.texts, tags[-1:])
        return JSONResponse({"steps": [{"token": t, **_json(a)} for t, a in zip(tokens, answers, strict=True)]})

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok", "intents": len(classifier.labels)})

    async def page(request: Request) -> Response:
        return FileResponse(HERE / "index.html")

    async def description(request: Request) -> Response:
        return FileResponse(HERE / "openapi.json", media_type="application/json")

    routes = [
        Route("/predict", predict, methods=["POST"]),
        Route("/unfold", unfold, methods=["POST"]),
        Route("/health", health),
        Route("/openapi.json", description),
        Route("/", page),
    ]
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers={Refusal: _refused})


def warm(classifier: Classifier) -> None:
    """Compile what utterances of common lengths need, before the first one asks."""
    for rows in BATCHES:
        for steps in BOUNDARIES[:2]:
            classifier.logits(["word " * steps] * rows)


def encode(classifier: Classifier, text: str, name: str) -> np.ndarray:
    """Give the ids of a text; raises Refusal 422 for one that cannot be answered."""
    try:
        return classifier.encode(text)
    except UserError as reason:
        raise Refusal(422, f"{name}: {reason}") from reason


async def body_of(request: Request) -> Any:
    """Read a JSON body; raises Refusal for one too large (413), too slow (408), or none (422)."""
    body = bytearray()
    try:
        async with asyncio.timeout(SLOWEST):
            async for chunk in request.stream():
                body += chunk
                if len(body) > LARGEST:
                    raise Refusal(413, f"a request has {LARGEST} bytes at most")
    except TimeoutError as late:
        raise Refusal(408, f"the request did not arrive within {SLOWEST:g} s") from late
    except ClientDisconnect as gone:
        raise Refusal(400, "the client has gone") from gone
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as failure:
        raise Refusal(422, f"no JSON: {failure}") from failure


def _json(answer: Answer) -> dict[str, Any]:
    best = [{"intent": name, "probability": probability} for name, probability in answer.best]
    found = {"intent": answer.intent or "none", "probability": answer.probability, "reason": answer.reason}
    return {**found, "best": best, "slots": [slot._asdict() for slot in answer.slots]}


async def _refused(request: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refusal)
    headers = {"retry-after": "1"} if refusal.status == 429 else {}
    return JSONResponse({"detail": str(refusal)}, status_code=refusal.status, headers=headers)
