"""The native driver of matrix cells: the kernel against the same chunks in JAX, and `Native` against `Scan`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxrnn
from jaxrnn import KDA, MLSTM, Chunkwise, GatedDeltaNet, Mamba2, Native, Scan, select
from jaxrnn._core.matrix_cell import MemoryUpdate
from jaxrnn._drivers.memory_chunks import LEAST_LOG_DECAY, solve_chunks
from jaxrnn._drivers.second_order import second_order
from jaxrnn._kernels.cpu import library
from jaxrnn._kernels.cpu.memory import MemoryKernel
from tests import quick
from tests.core.table import far, masks, run, run_optimised, same_bits, total, value_and_gradients

pytestmark = pytest.mark.skipif(library.unavailable_reason() is not None, reason=str(library.unavailable_reason()))

CELLS = {
    "mlstm": lambda: MLSTM(2, 4, value_dim=6),
    "mamba2": lambda: Mamba2(3, 5),
    "gated_delta_net": lambda: GatedDeltaNet(2, 16, value_dim=3),
}
SIZES = [(1, (1,), 1, 1, 1, 4), (7, (2, 2), 3, 3, 5, 4), (40, (2,), 1, 20, 33, 16), (70, (), 2, 17, 65, 64)]


def kernel(chunk):
    in_jax = functools.partial(solve_chunks, chunk)
    return MemoryKernel(chunk, in_jax, second_order, LEAST_LOG_DECAY, True, "Native()")


def updates(time, batch, heads, keys, values, erases, seed=0):
    """Draw updates, among them decays to zero, and a memory."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)
    steps = time, *batch, heads
    key = draw(*steps, keys)
    decay = jnp.where(draw(*steps, 1) > 2, -1000.0, -0.3 * jnp.abs(draw(*steps, 1)))
    erase = jax.nn.sigmoid(draw(*steps)) if erases else None
    key = key / jnp.linalg.norm(key, axis=-1, keepdims=True)
    update = MemoryUpdate(draw(*steps, keys), key, draw(*steps, values), decay, erase)
    return update, draw(*batch, heads, keys, values)


def loss(solve, update, memory):
    final, read = solve(update, memory, None, None)
    weights = jnp.cos(jnp.arange(read.size, dtype=read.dtype)).reshape(read.shape)
    return (weights * read).sum() + jnp.sin(final).sum(), (final, read)


def exact(solve, update, memory):
    """Return the value and the gradients in float64."""
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: jnp.asarray(np.asarray(a), jnp.float64), (update, memory))
        out = quick.jit(jax.value_and_grad(functools.partial(loss, solve), (0, 1), has_aux=True))(*wide)
        return jax.tree.map(np.asarray, out)


def error(got, want):
    """Return the largest difference, relative to the largest entry of each array (of 1 at least)."""
    pairs = zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True)
    return max(np.abs(np.asarray(g, np.float64) - w).max() / max(np.abs(w).max(), 1) for g, w in pairs)


@pytest.mark.parametrize("erases", [False, True], ids=["plain", "erase"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_equals_the_chunks_in_jax(size, erases):
    """Value and gradients, for every instruction set of this machine, in one compiled program."""
    *sizes, chunk = size
    arguments = updates(*sizes, erases)
    want = exact(functools.partial(solve_chunks, chunk), *arguments)
    f = quick.jit(jax.value_and_grad(functools.partial(loss, kernel(chunk)), (0, 1), has_aux=True))
    here, found = library.isa(), []
    for isa in ["avx512", "avx2", "baseline"]:
        try:
            library.use_isa(isa)
        except ValueError:
            continue
        found.append(isa)
        got = jax.block_until_ready(f(*arguments))
        library.use_isa(here)
        assert error(got, want) < 2e-5, isa
    assert "baseline" in found


def arguments(cell, time, batch, inputs=5, dtype=jnp.float32):
    params = cell.init(jax.random.key(0), inputs)
    state = cell.initial_state(params, batch)
    state = jax.tree.map(lambda a: a + 0.1 * jax.random.normal(jax.random.key(1), a.shape), state)
    tree = params, state, jax.random.normal(jax.random.key(2), (time, *batch, inputs))
    return jax.tree.map(lambda a: a.astype(dtype), tree)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("batch", [(3,), (), (2, 2)], ids=str)
@pytest.mark.parametrize("name", CELLS)
def test_equals_scan(name, batch, reverse):
    cell, time = CELLS[name](), 70
    given = arguments(cell, time, batch)
    kw = {"lengths": jnp.asarray(np.random.default_rng(0).integers(1, time + 1, batch))}
    (_, got), gradients = run(cell, *given, kw, Native(), reverse)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: jnp.asarray(np.asarray(a), jnp.float64), given)
        (_, want), want_gradients = jax.tree.map(np.asarray, run(cell, *wide, kw, Scan(), reverse))
    assert error(got, want) < 2e-5
    assert error(gradients, want_gradients) < 2e-4  # as that of Scan() in float32


@pytest.mark.optimised
@pytest.mark.parametrize("name", ["gated_delta_net", "mamba2"])
def test_long_sequences_of_several_groups(name):
    """Groups of chunks, work for several threads, in a program compiled with optimizations; the same bits again."""
    cell = CELLS[name]()
    given = arguments(cell, 700, (4,))
    got = run_optimised(cell, *given, {}, Native())
    assert same_bits(got, run_optimised(cell, *given, {}, Native()))
    (_, out), gradients = got
    (_, want), want_gradients = run_optimised(cell, *given, {}, Scan())
    assert error(out, jax.tree.map(np.asarray, want)) < 1e-4
    assert error(gradients, jax.tree.map(np.asarray, want_gradients)) < 1e-3


def test_vmap_is_a_larger_batch():
    """Over rows and over weights, with the gradient inside and outside."""
    cell = GatedDeltaNet(2, 4)
    params, state, xs = arguments(cell, 9, (3,))
    many = jax.tree.map(lambda a: jnp.stack([a, 0.5 * a]), params)

    def both(driver):
        f = lambda p, x: total(*jaxrnn.unroll(cell, p, x, state, driver=driver))
        rows = jnp.stack([xs, -xs])
        inside = jax.vmap(jax.value_and_grad(f, (0, 1)), in_axes=(0, None))(many, xs)
        outside = jax.grad(lambda p: jax.vmap(functools.partial(f, p))(rows).sum())(params)
        return inside, outside

    assert far(both(Native()), both(Scan())) < 1e-4


def test_second_order():
    cell = GatedDeltaNet(2, 4)
    params, state, xs = arguments(cell, 9, (2,))

    def twice(driver):
        f = lambda x: total(*jaxrnn.unroll(cell, params, x, state, driver=driver))
        return jax.grad(lambda x: (jax.grad(f)(x) ** 2).sum())(xs)

    assert far(twice(Native()), twice(Scan())) < 1e-3
    with pytest.raises(TypeError, match=r"forward-mode .* need driver=jaxrnn\.Scan\(\)"):
        jax.jvp(lambda x: jaxrnn.unroll(cell, params, x, driver=Native())[1], (xs,), (xs,))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_16_bits_are_widened(dtype):
    cell = GatedDeltaNet(2, 4)
    given = arguments(cell, 20, (2,), dtype=jnp.dtype(dtype))
    (_, (final, ys)), _ = run(cell, *given, {}, Native())
    (_, (want, want_ys)), _ = run(cell, *given, {}, Chunkwise())
    assert ys.dtype == final.memory.dtype == dtype
    assert far((final, ys), (want, want_ys)) < 2e-2


@pytest.mark.optimised
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
def test_a_sharded_batch_stays_sharded(kind):
    cell = GatedDeltaNet(2, 4)
    params, _, xs = arguments(cell, 9, (16,))
    f = jax.jit(jax.value_and_grad(lambda p, x: total(*jaxrnn.unroll(cell, p, x, driver=Native())), (0, 1)))
    want = f(params, xs)
    with jax.set_mesh(jax.make_mesh((8,), ("data",), axis_types=(kind,))):
        lay = lambda a, *spec: jax.device_put(a, NamedSharding(jax.sharding.get_mesh(), PartitionSpec(*spec)))
        given = jax.tree.map(lay, params), lay(xs, None, "data")
        got = f(*given)
        assert got[1][1].sharding.spec[1] == "data"
        assert "all-gather" not in f.lower(*given).compile().as_text()
    assert far(jax.device_get(got), jax.device_get(want)) < 1e-4


def test_an_exported_program_has_no_kernel():
    cell = GatedDeltaNet(2, 4)
    params, state, xs = arguments(cell, 9, (2,))
    f = jax.jit(lambda p, x: value_and_gradients(cell, p, state, x, {}, Native()))
    exported = export.deserialize(export.export(f)(params, xs).serialize())
    assert far(exported.call(params, xs), f(params, xs)) < 1e-5


@pytest.mark.parametrize("time", [0, 1])
def test_short_sequences(time):
    cell = MLSTM(2, 4)
    params, state, xs = arguments(cell, 1, (2,))
    got, want = (jaxrnn.unroll(cell, params, xs[:time], state, driver=driver) for driver in (Native(), Scan()))
    assert far(got, want) < 1e-5


def test_what_it_does_not_take():
    xs, resets = jnp.ones((3, 2, 4)), masks(time=3, batch=(2,))["resets"]
    unroll = lambda cell, **kw: jaxrnn.unroll(cell, cell.init(jax.random.key(0), 4), xs, driver=Native(), **kw)
    with pytest.raises(ValueError, match=r"one decay a head.* Use Chunkwise\(\), or Scan\(\)"):
        unroll(KDA(2, 4))
    with pytest.raises(ValueError, match=r"takes no resets .* Use Chunkwise\(\), or Scan\(\)"):
        unroll(MLSTM(2, 4), resets=resets)
    with jax.enable_x64(True), pytest.raises(ValueError, match=r"float64.* Use Chunkwise\(\)"):
        unroll(MLSTM(2, 4), state_dtype=jnp.float64)


def test_the_kernel_checks_its_operands():
    of = jax.ffi.ffi_call("jaxrnn_memory_forward", [jax.ShapeDtypeStruct((1,), jnp.float32)] * 3)
    call = lambda *operands, chunk: jax.block_until_ready(of(*operands, chunk=chunk))
    empty, four = jnp.zeros(0), jnp.zeros((2, 1, 1, 3))
    with pytest.raises(jax.errors.JaxRuntimeError, match="keys and values of four axes"):
        call(*[empty] * 6, chunk=np.int64(4))
    with pytest.raises(jax.errors.JaxRuntimeError, match="log_decay of shape"):
        call(four, four, four, empty, empty, empty, chunk=np.int64(4))
    with pytest.raises(jax.errors.JaxRuntimeError, match="a chunk of one step at least"):
        call(four, four, four, empty, empty, empty, chunk=np.int64(0))


def test_select():
    """`Native` where it takes the cell, else `Chunkwise`, and `Scan` for few steps."""
    for cell in (make() for make in CELLS.values()):
        take = functools.partial(select, cell, (100, 2, 4), jnp.float32)
        assert take("cpu") == Native()
        assert take("cpu", resets=True) == take("gpu") == Chunkwise()
        assert select(cell, (4, 1, 4), jnp.float32, "cpu") == select(cell, (4, 1, 4), jnp.float32, "gpu") == Scan()
        assert select(cell, (100, 2, 4), jnp.float64, "cpu") == Chunkwise()
    assert select(KDA(2, 4), (100, 2, 4), jnp.float32, "cpu") == Chunkwise()


def test_unroll_takes_resets():
    cell = MLSTM(2, 4)
    params, state, xs = arguments(cell, 12, (2,))
    kw = masks(time=12, batch=(2,))
    got, want = (jaxrnn.unroll(cell, params, xs, state, driver=driver, **kw) for driver in (None, Scan()))
    assert far(got, want) < 1e-4
