"""Deferred handling of Ctrl-C."""

from __future__ import annotations

import signal
import threading
from contextlib import AbstractContextManager
from types import FrameType


class HeldInterrupts(AbstractContextManager["HeldInterrupts"]):
    """A context that holds the first Ctrl-C until `check` or its end. A second one before that takes effect at once.

    It is needed because an interrupt inside a compilation, an import or the threads of a save may be lost or raise
    other errors. Outside the main thread, and if SIGINT is ignored, it has no effect.
    """

    def __enter__(self) -> HeldInterrupts:
        """Replace the handler of SIGINT."""
        handler = signal.getsignal(signal.SIGINT)
        self._handler = handler if callable(handler) else None
        self._held = False
        self._active = threading.current_thread() is threading.main_thread() and self._handler is not None
        if self._active:
            signal.signal(signal.SIGINT, self._hold)
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        """Restore the handler, and raise a held interrupt."""
        if self._active:
            signal.signal(signal.SIGINT, self._handler)
        if kind is None:
            self.check()

    def check(self) -> None:
        """Raise a held interrupt: KeyboardInterrupt, if the handler is Python's."""
        held, self._held = self._held, False
        if held and self._handler is not None:
            self._handler(signal.SIGINT, None)

    def _hold(self, number: int, frame: FrameType | None) -> None:
        if self._held and self._handler is not None:
            self._handler(number, frame)
        self._held = True
