"""The Pallas kernel, interpreted: equal to `Scan` for cells with an elementwise gate.

On a GPU (`bash benchmarks/device.sh fused`) the same tests run the kernel for GPUs, in TF32.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import GRU, LSTM, Bidirectional, Elman, Fused, GatedCell, Heads, PeepholeLSTM, Scan, Stack, Zoneout
from jaxrnn._kernels.pallas.hopper import Hopper
from jaxrnn._kernels.pallas.tiling import Tiling

from .table import draw, far, masks, run, total

GPU = jax.default_backend() == "gpu"
FUSED = Fused(interpret=not GPU)
TOLERANCE = 2e-2 if GPU else 1e-5  # relative to the largest entry


@dataclasses.dataclass(frozen=True)
class Damped(GatedCell):
    """A user-defined cell: a state of two arrays, a gate with params, preactivations that are not added."""

    hidden: int
    gates = 2

    def initial_state(self, params, batch=()):
        full = lambda value: jnp.full((*batch, self.hidden), value, params.b.dtype)
        return {"h": full(0.5), "v": full(0.0)}

    def read(self, s):
        return jnp.sin(s["h"])

    def init_local(self, key):
        return jnp.linspace(0.1, 0.9, self.hidden)

    def gate(self, s, u, v):
        return self.transition(jnp.zeros(()), s, u, v)

    def transition(self, damping, s, u, v):
        speed = damping * s["v"] + jax.nn.sigmoid(u[0] * v[0]) * jax.nn.relu(u[1] + v[1] - s["h"])
        return {"h": s["h"] + 0.1 * speed, "v": speed}


class Half(jaxrnn.Dense):
    """Another recurrence with weights of the same shape."""

    def __call__(self, w, r):
        return super().__call__(0.5 * w, r)


class Mean(Elman):
    """A gate that mixes units."""

    def gate(self, s, u, v):
        return super().gate(s, u, v) + s.mean(-1, keepdims=True)


class Broadcast(Damped):
    """An input preactivation that is broadcast to all units."""

    def project(self, params, x):
        return (*super().project(params, x), x[..., :1])


CELLS = {
    "elman": Elman(6),
    "lstm": LSTM(6),
    "gru": GRU(6),
    "peephole": PeepholeLSTM(6),
    "own": Damped(6),
    "lstm_heads": LSTM(6, recurrence=Heads(3)),
}
MASKS = {"plain": ({}, False), "masked": (masks(), False), "masked_reverse": (masks(1), True)}


def close(got, want):
    largest = max(float(jnp.abs(a).max(initial=1)) for a in jax.tree.leaves(want))
    return far(got, want) <= TOLERANCE * largest


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("name", "how"),
    [(name, "masked_reverse") for name in CELLS] + [("lstm", "masked"), ("gru", "plain"), ("own", "plain")],
)
def test_equals_scan_in_value_and_gradient(name, how):
    kw, reverse = MASKS[how]
    operands = draw(CELLS[name])
    got, want = (run(CELLS[name], *operands, kw, driver, reverse) for driver in (FUSED, Scan()))
    assert close(got, want)


@pytest.mark.gpu
@pytest.mark.parametrize(("time", "batch", "hidden"), [(1, (3,), 40), (37, (), 5), (2, (2, 3), 17)])
def test_odd_sizes(time, batch, hidden):
    cell = GRU(hidden)
    operands = draw(cell, time=time, batch=batch)
    kw = masks(time=time, batch=batch) if batch == (3,) else {}
    got, want = (run(cell, *operands, kw, driver) for driver in (FUSED, Scan()))
    assert close(got, want)


@pytest.mark.gpu
def test_composites():
    cell = Stack((Bidirectional(GRU(6), LSTM(5)), Zoneout(LSTM(4), 0.3)))
    got, want = (run(cell, *draw(cell), masks() | {"key": jax.random.key(1)}, d) for d in (FUSED, Scan()))
    assert close(got, want)


@pytest.mark.gpu
@pytest.mark.parametrize("axes", [(None, 1, 2), (0, 1, None), (None, None, 2)], ids=str)
def test_vmap(axes):
    cell = LSTM(6)
    params, state, xs = draw(cell)
    stacked = [
        jax.tree.map(lambda a: jnp.stack([a, 1.5 * a], axis) if axis is not None else a, tree)
        for tree, axis in zip((params, state, xs), axes, strict=True)
    ]
    of = lambda driver: jax.vmap(functools.partial(run, cell, kw={}, driver=driver), axes)(*stacked)
    assert close(of(FUSED), of(Scan()))


@pytest.mark.gpu
def test_bfloat16_is_summed_in_float32():
    """The result is closer to float32 than that of `Scan`, which rounds the state in every step."""
    cell = LSTM(6)
    params, state, xs = draw(cell, time=40)
    narrow = jax.tree.map(lambda a: a.astype(jnp.bfloat16), (params, state, xs))
    wide = jax.tree.map(lambda a: a.astype(jnp.float32), narrow)
    unroll = lambda operands, driver: jaxrnn.unroll(cell, operands[0], operands[2], operands[1], driver=driver)[1]
    error = lambda driver: float(jnp.abs(unroll(narrow, driver).astype(jnp.float32) - unroll(wide, Scan())).mean())
    assert unroll(narrow, FUSED).dtype == jnp.bfloat16
    assert error(FUSED) < error(Scan())


def test_second_order_goes_through_bptt():
    cell = GRU(3)
    params, state, xs = draw(cell, time=3)
    f = lambda b, driver: total(*jaxrnn.unroll(cell, params._replace(b=b), xs, state, driver=driver, **masks(time=3)))
    of = lambda driver: jax.jit(jax.jacrev(jax.grad(functools.partial(f, driver=driver))))(params.b)
    assert far(of(FUSED), of(Scan())) <= 1e-4


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (LSTM(6, recurrence=Half()), r"takes Dense\(\) recurrent weights"),
        (Broadcast(6), r"takes states and preactivations of 6 units; .* has one of shape \(5, 3, 1\)"),
        (jaxrnn.LayerNormLSTM(6), "takes params of the gate of shape"),
        (Mean(6), "elementwise gate of .* has `reduce_sum`"),
        (LSTM(6, recurrence=jaxrnn.Diagonal()), r"takes Dense\(\) recurrent weights"),
        (jaxrnn.ResetBeforeGRU(6), "needs a GatedCell"),
    ],
    ids=["subclass", "one term for all units", "other params", "mixes units", "diagonal", "plain"],
)
def test_another_cell_raises(cell, message):
    params, state, xs = draw(cell)
    with pytest.raises(ValueError, match=message):
        jaxrnn.unroll(cell, params, xs, state, driver=FUSED)


def test_another_platform_or_dtype_raises(x64):
    cell = LSTM(6)
    with pytest.raises(ValueError, match=r"computes in float32 or narrower; got float64"):
        jaxrnn.unroll(cell, *draw(cell)[::2], driver=FUSED)
    with pytest.raises(ValueError, match=r"multiplies bfloat16, float16, float32 on a GPU, not float8"):
        Hopper(None, reverse=False).check((1, 40, 3, 40), jnp.float8_e4m3fn, 3, backward=False)
    if not GPU:
        narrow = jax.tree.map(lambda a: a.astype(jnp.float32), draw(cell)[::2])
        with pytest.raises(ValueError, match=r"runs on a GPU or a TPU, and this is a cpu"):
            jaxrnn.unroll(cell, *narrow, driver=Fused())


@pytest.mark.parametrize(
    ("cell", "dtype", "batch", "back"),
    [(LSTM(2112), jnp.bfloat16, 16, False), (LSTM(1088), jnp.float32, 16, True), (GRU(512), jnp.bfloat16, 4096, False)],
    ids=["units", "gradient in float32", "batch"],
)
def test_weights_that_do_not_fit_raise(cell, dtype, batch, back):
    shape = (1, cell.hidden, cell.gates, cell.hidden)
    with pytest.raises(ValueError, match=r"keeps the recurrent weights on the chip: .* KiB"):
        Tiling.of(shape, dtype, batch, cell.gates if back else 1)
    assert Tiling.of((1, 512, cell.gates, 512), dtype, 16, cell.gates).members > 1


@pytest.mark.parametrize("name", ["own", "relu", "softplus", "lstm_heads"])
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_lowers_for(platform, name, monkeypatch):
    """Lower to the code that the device would compile."""
    from jaxrnn._drivers import fused
    from jaxrnn._kernels.pallas.blocks import Blocks

    kernel = (lambda driver, *a: Hopper(*a)) if platform == "cuda" else (lambda driver, *a: Blocks(*a, False))
    monkeypatch.setattr(fused, "_kernel", kernel)
    hidden = {"cuda": 6, "tpu": 9}[platform]  # two sizes, since the second platform would find the trace of the first
    more = {"relu": Elman(hidden, activation="relu"), "softplus": Elman(hidden, activation="softplus")}
    cell = dataclasses.replace((CELLS | more)[name], hidden=hidden)
    params = jax.tree.map(lambda a: a.astype(jnp.bfloat16), cell.init(jax.random.key(0), 4))
    loss = lambda params, xs: jaxrnn.unroll(cell, params, xs, driver=Fused(), **masks())[1].astype(jnp.float32).sum()
    xs = jnp.zeros((5, 3, 4), jnp.bfloat16)
    text = jax.jit(jax.grad(loss)).trace(params, xs).lower(lowering_platforms=(platform,)).as_text()
    assert text.count("mosaic_gpu" if platform == "cuda" else "tpu_custom_call") >= 2


def test_padded_units_repeat_the_last():
    """The gate sees no new values in padded units; their weights are zero."""
    tiling = Tiling.of((2, 20, 3, 20), jnp.bfloat16, 5, 1)
    assert (tiling.width, tiling.batch, tiling.members) == (32, tiling.rows, 2)
    draw = np.random.default_rng(0).standard_normal
    padded = tiling.pad(jnp.asarray(draw((4, 5, 40)))).reshape(4, tiling.batch, 2, 32)
    assert (padded[..., 20:] == padded[..., 19:20]).all()
    assert (padded[:, 5:] == padded[:, 4:5]).all()


@pytest.mark.parametrize("times", [1, 3], ids=["forward", "backward"])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32], ids=["bfloat16", "float32"])
def test_fragments_have_the_layout_of_mma(dtype, times):
    """A (16, k) and B (k, 8) of `mma.sync` in the PTX manual: lane 4 g + c, rows g and g + 8 of A, column g
    of B. Each lane has two parts of the k; their order is free if A and B agree."""
    tiling = Tiling.of((2, 50, 3, 50), dtype, 5, times)
    draw = np.random.default_rng(0).integers
    w = draw(-3, 4, (2, 50, 3, 50)).astype(np.float32)
    r = draw(-3, 4, (times, 8, 2, tiling.width)).astype(np.float32)
    words = np.asarray(tiling.fragments_of(jnp.asarray(w, dtype))).view(dtype).astype(np.float32)
    words = words.reshape(2, tiling.members, tiling.fragments, 4, 8, 4, 2, 2, -1)  # ..., warp, g, c, part, high, its k
    padded = np.pad(w, [(0, 0), (0, tiling.width - 50), (0, 0), (0, tiling.width - 50)], mode="edge")
    padded[:, 50:] = 0
    got = np.zeros((2, tiling.members, tiling.height // 16, 2, 8, 8), np.float32)  # ..., tile, high, g, row
    for vector in (v for section in tiling.sections() for group in section.loads for v in group):
        for warp in range(4):
            span = warp + 4 * vector.turn
            if span < tiling.spans:
                loaded = r[vector.time, :, :, span * tiling.span : (span + 1) * tiling.span]
                loaded = loaded.reshape(8, 2, 4, 2, 2, -1)  # row, block, c, half, part, its k
                for tile, half in np.ndindex(tiling.height // 16, 2):
                    a = words[:, :, tiling.fragment(vector, tile, half), warp]
                    got[:, :, tile] += np.einsum("nmgcphk,rncpk->nmhgr", a, loaded[:, :, :, half])
    owned = padded.reshape(2, tiling.width, 3, tiling.members, tiling.units)
    summed = "trnk,nktmu->nmur" if times > 1 else "trnk,nkgmu->nmgur"
    want = np.einsum(summed, r, owned).reshape(2, tiling.members, tiling.height, 8)
    assert (got.reshape(want.shape) == want).all()


@pytest.mark.parametrize("sharding", ["explicit", "shard_map"])
def test_each_device_runs_its_rows(sharding):
    cell = GRU(6)
    params, state, xs = draw(cell, batch=(4,))
    mesh = jax.make_mesh((2,), ("b",), axis_types=(jax.sharding.AxisType.Explicit,))
    rows, whole = jax.P(None, "b"), jax.P()

    def gradients(params, xs, driver):
        loss = lambda params, xs: total(*jaxrnn.unroll(cell, params, xs, driver=driver))
        return jax.grad(loss, (0, 1))(params, xs)

    want = jax.jit(gradients, static_argnums=2)(params, xs, Scan())
    with jax.set_mesh(mesh):
        xs = jax.device_put(xs, rows)
        if sharding == "explicit":
            got = jax.jit(gradients, static_argnums=2)(params, xs, FUSED)
        else:
            each = functools.partial(gradients, driver=FUSED)
            got = jax.jit(jax.shard_map(each, in_specs=(whole, rows), out_specs=(whole, rows)))(params, xs)
    assert close(jax.device_get(got), jax.device_get(want))
