"""The classifier over HTTP: POST /predict and /unfold, GET /health and /openapi.json, and a page to try it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import textwrap
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from .classifier import BATCHES, BOUNDARIES, Answer, Classifier, with_slots
from .errors import UserError
from .schema import Threshold
from .text import tokenize

LARGEST = 1 << 20  # bytes of a request
SLOWEST = 5.0  # seconds that a request may take to arrive
MOST_TEXTS = 256  # of a request, and of a batch
MOST_WAITING = 2048  # texts
MOST_TOKENS = 64  # of a text that is unfolded
MOST_TOKENS_IN_ALL = 1 << 15  # of the texts of a request
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


class Question(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /predict` and `/unfold`."""

    text: str | UnsetType = UNSET
    texts: Annotated[list[str], Meta(min_length=1, max_length=MOST_TEXTS)] | UnsetType = UNSET
    top_k: Annotated[int, Meta(ge=1)] = 3
    threshold: Threshold | None = None

    def __post_init__(self) -> None:
        """Refuse both, and neither."""
        if (self.text is UNSET) == (self.texts is UNSET):
            raise ValueError('needs {"text": "..."} or {"texts": ["...", ...]}')


@dataclasses.dataclass(frozen=True)
class Service:
    """What the routes do.

    Args:
        classifier: what answers.
        batcher: around its `hear`.
    """

    classifier: Classifier
    batcher: Batcher

    async def predict(self, request: Request) -> Response:
        """Answer one text, or each of many."""
        question = await question_of(request)
        if isinstance(question.text, str):
            answers, tags = await self._ask(question, [encode(self.classifier, question.text, "text")])
            return JSONResponse(_json(*with_slots(answers, [question.text], tags)))
        return JSONResponse({"answers": await self._each(question, list(question.texts or ()))})

    async def unfold(self, request: Request) -> Response:
        """Answer every beginning of a text."""
        question = await question_of(request)
        if not isinstance(question.text, str):
            raise Refusal(422, 'needs {"text": "..."}')
        ids, tokens = encode(self.classifier, question.text, "text"), tokenize(question.text)
        if len(ids) > MOST_TOKENS:
            raise Refusal(422, f"text: has room for {MOST_TOKENS} tokens; got {len(ids)}")
        answers, tags = await self._ask(question, [ids[:end] for end in range(1, len(ids) + 1)])
        answers[-1:] = with_slots(answers[-1:], [question.text], tags[-1:])
        return JSONResponse({"steps": [{"token": t, **_json(a)} for t, a in zip(tokens, answers, strict=True)]})

    async def health(self, request: Request) -> Response:
        """Return how many intents there are."""
        return JSONResponse({"status": "ok", "intents": len(self.classifier.labels)})

    async def _ask(self, question: Question, sequences: list[np.ndarray]) -> tuple[list[Answer], Sequence[list[str]]]:
        logits, tags = zip(*await self.batcher(sequences), strict=True)
        return self.classifier.name(np.stack(logits), most=question.top_k, threshold=question.threshold), tags

    async def _each(self, question: Question, texts: list[str]) -> list[dict[str, Any]]:
        """Return of each text its answer, or why there is none."""
        rows: list[dict[str, Any]] = [{} for _ in texts]
        sequences: dict[int, np.ndarray] = {}
        for i, text in enumerate(texts):
            try:
                sequences[i] = encode(self.classifier, text, f"texts[{i}]")
            except Refusal as refusal:
                rows[i] = {"detail": str(refusal)}
        if (tokens := sum(map(len, sequences.values()))) > MOST_TOKENS_IN_ALL:
            raise Refusal(413, f"texts must have {MOST_TOKENS_IN_ALL} tokens in all at most; got {tokens}")
        if sequences:
            answers, tags = await self._ask(question, list(sequences.values()))
            for i, answer in zip(sequences, with_slots(answers, [texts[i] for i in sequences], tags), strict=True):
                rows[i] = _json(answer)
        return rows


def application(classifier: Classifier) -> Starlette:
    """Make the application."""
    batcher = Batcher(lambda sequences: list(zip(*classifier.hear(sequences), strict=True)))
    service = Service(classifier, batcher)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await asyncio.to_thread(warm, classifier)
        worker = asyncio.create_task(batcher.run())
        yield
        worker.cancel()

    page, description = (HERE / "index.html").read_bytes(), (HERE / "openapi.json").read_bytes()
    routes = [
        Route("/predict", service.predict, methods=["POST"]),
        Route("/unfold", service.unfold, methods=["POST"]),
        Route("/health", service.health),
        Route("/openapi.json", Response(description, media_type="application/json"), methods=["GET"]),
        Route("/", HTMLResponse(page), methods=["GET"]),
    ]
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={Refusal: _refused})
    app.router.redirect_slashes = False  # a redirect would repeat the Host header that the client sent
    return app


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


async def question_of(request: Request) -> Question:
    """Read and check a body; raises Refusal for one too large (413), too slow (408), or not as it must be (422)."""
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
        return msgspec.json.decode(body, type=Question)
    except msgspec.ValidationError as failure:
        raise Refusal(422, textwrap.shorten(str(failure), 300, placeholder="...")) from failure
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
