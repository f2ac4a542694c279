"""What a cell is: one equation, written once as pure functions. How it runs over time is up to a driver.

T time, B batch (any number of leading axes), D input features, H hidden units, G gates.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from .broadcasting import broadcasting
from .checks import check_step
from .exportable import exportable
from .fields import Checked, check_init, convert, size
from .hooks import forbid, forbid_ignored
from .initializers import GlorotOrthogonal, Initializer
from .randomness import draw, no_noise
from .recurrence import Dense, Heads, Recurrence, a_recurrence, an_initializer, biased_gates, input_weights
from .trees import cast, cast_like, float_dtype
from .types import Inputs, Key, Output, Params, Projected, State

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@runtime_checkable
class Cell(Protocol):
    """An equation of one step in time: a frozen value that holds no array, with three pure methods."""

    def init(self, key: Key, in_dim: int) -> Params:
        """Draw the params for inputs of `in_dim` features."""
        ...

    def initial_state(self, params: Params, batch: tuple[int, ...] = ()) -> State:
        """Return the state before the first step, each leaf (*batch, features)."""
        ...

    def step(self, params: Params, state: State, x: Inputs) -> tuple[State, Output]:
        """Return (s_t, y_t) from s_{t-1} and x_t (*batch, D): one step, for streaming.

        A cell that needs randomness takes the key of the step as one more argument, `key=None`.
        """
        ...


@exportable
class GatedParams(NamedTuple):
    """The params of a gated cell, plain arrays.

    Attributes:
        w_x: input weights (D, G, H); the reshape to (D, G * H) is free.
        w_h: recurrent weights, whose shape depends on the cell's `recurrence`: (H, G, H) for `Dense()`.
        b: bias (G, H).
        local: other params of the gate (peepholes, gains), as the cell defines them; () for none.
    """

    w_x: Float[Array, "D G H"]
    w_h: Float[Array, ...]
    b: Float[Array, "G H"]
    local: Params = ()


INSTEAD = (
    "override `gate` or `transition` for another state, `output` for another output, `project` or `recur` for what the "
    "gate takes; or write a plain cell (init, initial_state, step) that has this one as a field."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GatedCell(metaclass=Checked):
    """s_t = gate(s_{t-1}, u_t, v_t) with u_t = x_t W_x + b and v_t = read(s_{t-1}) W_h.

    u and v are the preactivations of the G gates. A subclass is a frozen dataclass that defines `hidden` (H), `gates`
    (G), `initial_state`, `read` and `gate`; it inherits `init`, `step` and every driver with its gradient:

    >>> @dataclasses.dataclass(frozen=True)
    ... class Leaky(GatedCell):
    ...     hidden: int
    ...     gates = 1
    ...     def initial_state(self, params, batch=()): return jnp.zeros((*batch, self.hidden))
    ...     def read(self, h): return h
    ...     def gate(self, h, u, v): return 0.9 * h + 0.1 * jnp.tanh(u[0] + v[0])
    >>> cell = Leaky(8)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> state, y = cell.step(params, cell.initial_state(params, (2,)), jnp.ones((2, 3)))
    >>> y.shape
    (2, 8)

    Args:
        recurrence: how v comes from read(s): `Dense()`, `Diagonal()`, `Heads(n)` or `Dale(excitatory)`.
        initializer: how the weights are drawn: `GlorotOrthogonal()`, `TorchUniform()` or another `Initializer`.

    More methods have a default and may be overridden: `init_local` with `transition` (a gate with params other than
    weights and bias), `output` (another y_t), `bias_offset` (another initial b), `project` (another u_t) and `noise`
    (randomness at every step). A method `with_context(params, context)` makes it a cell with a context.

    Fields are static: Python numbers, strings, tuples, frozen dataclasses, functions; arrays belong in the params. They
    are checked when a cell is made. A subclass checks its own in `__check_init__(self)`, without calling the base's.
    """

    if TYPE_CHECKING:  # a subclass defines these two, as fields or as class attributes

        @property
        def hidden(self) -> int:
            """H."""

        @property
        def gates(self) -> int:
            """G."""

    recurrence: Recurrence = Dense()
    initializer: Initializer = GlorotOrthogonal()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse what drivers would ignore, and do not inherit `native`: a subclass may be another equation."""
        super().__init_subclass__(**kwargs)
        for name in ("step", "advance"):
            forbid(cls, GatedCell, name, INSTEAD)
        forbid_ignored(cls, GatedCell, "gate", "transition")
        for part in ("init_local", "bias_offset"):
            forbid_ignored(cls, GatedCell, part, "init")
        if cls.transition is not GatedCell.transition and cls.gate is GatedCell.gate:
            cls.gate = _no_gate  # type: ignore[method-assign]
        if "native" not in cls.__dict__:
            setattr(cls, "native", GatedCell.native)  # noqa: B010

    def __check_init__(self) -> None:
        """Check the sizes and the parts."""
        convert(self, hidden=size, gates=size, recurrence=a_recurrence, initializer=an_initializer)
        if isinstance(self.recurrence, Heads):
            self.recurrence.dim(self.hidden)

    @abc.abstractmethod
    def initial_state(self, params: Params, batch: tuple[int, ...] = ()) -> State:
        """Return the state before the first step, each leaf (*batch, features)."""

    @abc.abstractmethod
    def read(self, s: State) -> Float[Array, "*batch H"]:
        """Return what the recurrent weights are applied to, (*batch, H)."""

    @abc.abstractmethod
    def gate(self, s: State, u: tuple[jax.Array, ...], v: tuple[jax.Array, ...]) -> State:
        """Return s_t from s_{t-1} and the preactivations of x_t (u) and s_{t-1} (v), G arrays (*batch, H) each."""

    # Methods with a default.

    def init_local(self, key: Key) -> Params:
        """Draw the other params of the gate, stored as `params.local`. Empty here."""
        return ()

    def local(self, params: Params) -> Params:
        """Return the params that `transition` uses."""
        return params.local

    def transition(self, local: Params, s: State, u: Projected, v: tuple[jax.Array, ...]) -> State:
        """Return s_t as `gate` does, with the params that `local` returns: those of `init_local`.

        A subclass that overrides it needs no `gate`.
        """
        return self.gate(s, u, v)

    def output(self, params: Params, s: State, x: Inputs) -> Output:
        """Return y_t from s_t, here read(s_t), in the dtype of the params. Any leading axes."""
        return self.read(s).astype(params.w_x.dtype)

    def bias_offset(self) -> jax.Array | float:
        """Return what is added to the initial b (G, H), such as a forget bias."""
        return 0.0

    noise = no_noise

    def project(self, params: Params, x: Inputs) -> Projected:
        """Return u = x W_x + b from x (..., D), G arrays (..., H). Any leading axes, time among them."""
        return biased_gates(x, params.w_x, params.b)

    def native(self) -> str | None:
        """Return the name of the C++ kernel that computes this very equation; None if there is none."""
        return None

    # Methods that are the same for every gated cell.

    def init(self, key: Key, in_dim: int) -> Params:
        """Draw the params for inputs of `in_dim` features: `GatedParams`, unless a cell overrides it."""
        return _draw(self, key, check_init(self, key, in_dim))

    def recur(self, params: Params, s: State) -> tuple[jax.Array, ...]:
        """Return v = read(s) W_h, G arrays (..., H). Any leading axes."""
        return self.recurrence(params.w_h, self.read(s))

    def advance(self, local: Params, s: State, u: Projected, v: tuple[jax.Array, ...]) -> State:
        """Return s_t as `transition` does, computed elementwise in the dtype of the state."""
        dtype = float_dtype(s)
        new = self.transition(cast(local, dtype), s, cast(u, dtype), cast(v, dtype))
        return cast_like(new, s)

    @broadcasting
    def step(self, params: Params, state: State, x: Inputs, *, key: Key | None = None) -> tuple[State, Output]:
        """Return (s_t, y_t) from s_{t-1} and x_t (*batch, D), with the noise of the key."""
        check_step(self, params, state, x)
        u = self.project(params, x)
        if noise := draw(self, key, jax.tree.leaves(x)[0].shape[:-1]):
            u = (*u, *noise)
        state = self.advance(self.local(params), state, u, self.recur(params, state))
        return state, self.output(params, state, x)


def _no_gate(self: GatedCell, s: State, u: Projected, v: tuple[jax.Array, ...]) -> State:
    """Raise: the gate has params, which `transition` takes."""
    raise TypeError(f"{type(self).__name__} has a `transition` in place of a `gate`")


@functools.partial(jax.jit, static_argnums=(0, 2))  # one program, where eager draws would compile a dozen
def _draw(cell: GatedCell, key: jax.Array, in_dim: int) -> GatedParams:
    k_x, k_h, k_b, k_local = jax.random.split(key, 4)
    return GatedParams(
        input_weights(cell.initializer, k_x, (in_dim, cell.gates, cell.hidden)),
        cell.recurrence.init(k_h, cell.initializer, cell.gates, cell.hidden),
        cell.initializer.bias(k_b, (cell.gates, cell.hidden)) + cell.bias_offset(),
        cell.init_local(k_local),
    )


def draw_weights(initializer: Initializer, key: Key, in_dim: int, gates: int, hidden: int) -> GatedParams:
    """Draw the params of a plain cell that has the weights of a gated cell: w_x, dense w_h, and b."""
    k_x, k_h, k_b = jax.random.split(key, 3)
    return GatedParams(
        input_weights(initializer, k_x, (in_dim, gates, hidden)),
        initializer.recurrent(k_h, (hidden, gates, hidden)),
        initializer.bias(k_b, (gates, hidden)),
    )


def zero_state(params: Params, shape: tuple[int, ...]) -> jax.Array:
    """Return zeros in the dtype of the bias b; in the default float dtype where there are no params yet."""
    return jnp.zeros(shape, None if params is None else params.b.dtype)
