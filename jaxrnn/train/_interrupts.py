"""Deferred handling of Ctrl-C."""

from __future__ import annotations

import signal
import threading
from contextlib import AbstractContextManager
from typing import Any


class HeldInterrupts(AbstractContextManager["HeldInterrupts"]):
    """Hold back the first Ctrl-C until `check`, or until the end; a second one before that goes through at once.

    An interrupt inside a compilation, an import or the threads of a save may be lost, or end in other errors. Outside
    the main thread, and where SIGINT is ignored, nothing is changed.
    """

    def __enter__(self) -> HeldInterrupts:
        """Replace the handler of SIGINT."""
        self._before: Any = signal.getsignal(signal.SIGINT)
        self._held = False
        self._active = threading.current_thread() is threading.main_thread() and callable(self._before)
        if self._active:
            signal.signal(signal.SIGINT, self._hold)
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        """Restore the handler, and raise a held interrupt."""
        if self._active:
            signal.signal(signal.SIGINT, self._before)
        if kind is None:
            self.check()

    def check(self) -> None:
        """Raise a held interrupt: KeyboardInterrupt, if the handler is Python's."""
        held, self._held = self._held, False
        if held:
            self._before(signal.SIGINT, None)

    def _hold(self, number: int, frame: Any) -> None:
        if self._held:
            self._before(number, frame)
        self._held = True
