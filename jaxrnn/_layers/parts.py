"""What composites of several layers share."""

from __future__ import annotations

import dataclasses

from .._core.composite import Composite, Part, part
from .._core.context import with_context
from .._core.fields import show
from .._core.types import Context, Params, State


@dataclasses.dataclass(frozen=True)
class Parts(Composite):
    """A composite of a tuple of layers, whose params and state are tuples with an entry a layer."""

    layers: tuple[Part, ...]

    def __check_init__(self) -> None:
        """Check the layers."""
        name = type(self).__name__
        if not isinstance(self.layers, tuple) or not self.layers:
            raise ValueError(
                f"{name} takes a tuple of one layer or more: {name}((LSTM(8), GRU(8))); got {show(self.layers)}"
            )
        for k, layer in enumerate(self.layers):
            part(layer, f"{name}.layers[{k}]")

    def initial_state(self, params: tuple[Params, ...], batch: tuple[int, ...] = ()) -> tuple[State, ...]:
        """Return each layer's initial state."""
        params = (None,) * len(self.layers) if params is None else params
        return tuple(layer.initial_state(p, batch) for layer, p in zip(self.layers, params, strict=True))

    def with_context(self, params: tuple[Params, ...], context: Context) -> tuple[Params, ...]:
        """Return the params with the context in those of the layers that take one."""
        return tuple(with_context(layer, p, context) for layer, p in zip(self.layers, params, strict=True))
