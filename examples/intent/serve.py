"""The HTTP service: POST /predict and /prefixes, GET /health and /openapi.json, and a page to try them."""

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

from .classifier import BATCHES, BOUNDARIES, Classifier, Prediction, with_slots
from .errors import UserError
from .schema import Threshold
from .text import tokenize

MAX_BODY_BYTES = 1 << 20
BODY_TIMEOUT = 5.0  # seconds
MAX_TEXTS = 256  # of a request, and of a batch
MAX_PENDING = 2048  # texts that wait for a batch
MAX_PREFIXES = 64  # of a text
MAX_TOTAL_TOKENS = 1 << 15  # of all texts of a request
STATIC = Path(__file__).parent / "static"


class RequestError(Exception):
    """An HTTP error: its status and its message."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class Batcher:
    """Dynamic batching: requests that arrive while a batch runs form the next one. Batches run in a separate thread.

    Args:
        function: from a list of items to a list of results.
    """

    def __init__(self, function: Callable[[list[Any]], Any]) -> None:
        self._function = function
        self._queue: list[tuple[list[Any], asyncio.Future[Any]]] = []
        self._pending = 0
        self._nonempty = asyncio.Event()
        self._thread = ThreadPoolExecutor(1)

    async def __call__(self, items: list[Any]) -> Any:
        """Return the results for items. Raise RequestError 429 if too many are pending."""
        if self._pending + len(items) > MAX_PENDING:
            raise RequestError(429, f"{self._pending} texts are pending. Try again in a second.")
        future = asyncio.get_running_loop().create_future()
        self._queue.append((items, future))
        self._pending += len(items)
        self._nonempty.set()
        try:
            return await future
        finally:
            self._pending -= len(items)

    async def run(self) -> None:
        """Run batches until cancelled."""
        while True:
            await self._nonempty.wait()
            batch = self._next_batch()
            items = [item for items, _ in batch for item in items]
            try:
                results = await asyncio.get_running_loop().run_in_executor(self._thread, self._function, items)
            except Exception as failure:  # every waiting request raises it
                for _, future in batch:
                    if not future.done():
                        future.set_exception(failure)
                continue
            start = 0
            for part, future in batch:
                if not future.done():  # it is done if the client has disconnected
                    future.set_result(results[start : start + len(part)])
                start += len(part)

    def _next_batch(self) -> list[tuple[list[Any], asyncio.Future[Any]]]:
        """Remove from the queue what fits into one batch."""
        size, count = 0, 0
        for items, _ in self._queue:
            if count and size + len(items) > MAX_TEXTS:
                break
            size, count = size + len(items), count + 1
        batch, self._queue = self._queue[:count], self._queue[count:]
        if not self._queue:
            self._nonempty.clear()
        return batch


class PredictRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /predict` and `/prefixes`."""

    text: str | UnsetType = UNSET
    texts: Annotated[list[str], Meta(min_length=1, max_length=MAX_TEXTS)] | UnsetType = UNSET
    top_k: Annotated[int, Meta(ge=1)] = 3
    threshold: Threshold | None = None

    def __post_init__(self) -> None:
        """Raise ValueError unless exactly one of text and texts is set."""
        if (self.text is UNSET) == (self.texts is UNSET):
            raise ValueError('needs {"text": "..."} or {"texts": ["...", ...]}')


@dataclasses.dataclass(frozen=True)
class Service:
    """The handlers of the routes.

    Args:
        classifier: encodes texts and decodes logits.
        batcher: runs `classifier.forward` on batches.
    """

    classifier: Classifier
    batcher: Batcher

    async def predict(self, request: Request) -> Response:
        """Return the prediction for one text, or for each of many."""
        body = await parse_request(request)
        if isinstance(body.text, str):
            predictions, tags = await self._run(body, [encode(self.classifier, body.text, "text")])
            return JSONResponse(_json(*with_slots(predictions, [body.text], tags)))
        return JSONResponse({"predictions": await self._run_each(body, list(body.texts or ()))})

    async def prefixes(self, request: Request) -> Response:
        """Return the prediction for every prefix of a text."""
        body = await parse_request(request)
        if not isinstance(body.text, str):
            raise RequestError(422, 'needs {"text": "..."}')
        ids, tokens = encode(self.classifier, body.text, "text"), tokenize(body.text)
        if len(ids) > MAX_PREFIXES:
            raise RequestError(422, f"text: must have {MAX_PREFIXES} tokens at most; got {len(ids)}")
        predictions, tags = await self._run(body, [ids[:end] for end in range(1, len(ids) + 1)])
        predictions[-1:] = with_slots(predictions[-1:], [body.text], tags[-1:])
        return JSONResponse({"steps": [{"token": t, **_json(p)} for t, p in zip(tokens, predictions, strict=True)]})

    async def health(self, request: Request) -> Response:
        """Return the status and the number of intents."""
        return JSONResponse({"status": "ok", "intents": len(self.classifier.labels)})

    async def _run(
        self, body: PredictRequest, sequences: list[np.ndarray]
    ) -> tuple[list[Prediction], Sequence[list[str]]]:
        """Return the predictions for sequences of ids, and the tags of their tokens."""
        logits, tags = zip(*await self.batcher(sequences), strict=True)
        return self.classifier.decode(np.stack(logits), top_k=body.top_k, threshold=body.threshold), tags

    async def _run_each(self, body: PredictRequest, texts: list[str]) -> list[dict[str, Any]]:
        """Return a prediction or an error for each text."""
        rows: list[dict[str, Any]] = [{} for _ in texts]
        sequences: dict[int, np.ndarray] = {}
        for i, text in enumerate(texts):
            try:
                sequences[i] = encode(self.classifier, text, f"texts[{i}]")
            except RequestError as error:
                rows[i] = {"detail": str(error)}
        if (tokens := sum(map(len, sequences.values()))) > MAX_TOTAL_TOKENS:
            raise RequestError(413, f"texts must have {MAX_TOTAL_TOKENS} tokens in all at most; got {tokens}")
        if sequences:
            predictions, tags = await self._run(body, list(sequences.values()))
            predictions = with_slots(predictions, [texts[i] for i in sequences], tags)
            for i, prediction in zip(sequences, predictions, strict=True):
                rows[i] = _json(prediction)
        return rows


def application(classifier: Classifier) -> Starlette:
    """Build the web application of a classifier."""
    batcher = Batcher(lambda sequences: list(zip(*classifier.forward(sequences), strict=True)))
    service = Service(classifier, batcher)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await asyncio.to_thread(warm_up, classifier)
        worker = asyncio.create_task(batcher.run())
        yield
        worker.cancel()

    page, description = (STATIC / "index.html").read_bytes(), (STATIC / "openapi.json").read_bytes()
    routes = [
        Route("/predict", service.predict, methods=["POST"]),
        Route("/prefixes", service.prefixes, methods=["POST"]),
        Route("/health", service.health),
        Route("/openapi.json", Response(description, media_type="application/json"), methods=["GET"]),
        Route("/", HTMLResponse(page), methods=["GET"]),
    ]
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={RequestError: _error_response})
    app.router.redirect_slashes = False  # a redirect would repeat the Host header that the client sent
    return app


def warm_up(classifier: Classifier) -> None:
    """Compile the classifier for utterances of common lengths, before the first request."""
    for rows in BATCHES:
        for steps in BOUNDARIES[:2]:
            classifier.logits(["word " * steps] * rows)


def encode(classifier: Classifier, text: str, name: str) -> np.ndarray:
    """Return the ids of a text. Raise RequestError 422 if it is empty or too long."""
    try:
        return classifier.encode(text)
    except UserError as error:
        raise RequestError(422, f"{name}: {error}") from error


async def parse_request(request: Request) -> PredictRequest:
    """Read and check a body. Raise RequestError if it is too large (413), too slow (408), or malformed (422)."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise RequestError(413, f"a request must have {MAX_BODY_BYTES} bytes at most")
    except TimeoutError as error:
        raise RequestError(408, f"the request did not arrive within {BODY_TIMEOUT:g} s") from error
    except ClientDisconnect as error:
        raise RequestError(400, "the client disconnected") from error
    try:
        return msgspec.json.decode(body, type=PredictRequest)
    except msgspec.ValidationError as error:
        raise RequestError(422, textwrap.shorten(str(error), 300, placeholder="...")) from error
    except (ValueError, RecursionError) as error:
        raise RequestError(422, f"invalid JSON: {error}") from error


def _json(prediction: Prediction) -> dict[str, Any]:
    best = [{"intent": name, "probability": probability} for name, probability in prediction.best]
    intent = {"intent": prediction.intent or "none", "probability": prediction.probability}
    slots = [slot._asdict() for slot in prediction.slots]
    return {**intent, "reason": prediction.reason, "best": best, "slots": slots}


async def _error_response(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    headers = {"retry-after": "1"} if error.status == 429 else {}
    return JSONResponse({"detail": str(error)}, status_code=error.status, headers=headers)
