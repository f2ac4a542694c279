"""The native driver: values, gradients, transformations and errors."""

import concurrent.futures
import functools
import pathlib
import platform
import resource
import subprocess
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxrnn
from jaxrnn import (
    BPTT,
    GRU,
    LSTM,
    Diagonal,
    Elman,
    LearnedState,
    MinGRU,
    Native,
    PeepholeLSTM,
    ProjectedLSTM,
    Scan,
    available_drivers,
    select,
)
from jaxrnn._drivers.precision import passes
from jaxrnn._kernels.cpu import library
from tests import quick
from tests.core.table import far, masks, run, run_optimised, same_bits, total, value_and_gradients

pytestmark = pytest.mark.skipif(library.unavailable_reason() is not None, reason=str(library.unavailable_reason()))

CELLS = {
    "elman": Elman,
    "elman_relu": lambda hidden: Elman(hidden, activation="relu"),
    "lstm": LSTM,
    "gru": GRU,
    "min_gru": MinGRU,
}
MASKS = {"plain": (False, False), "reverse": (False, True), "masked": (True, False), "masked_reverse": (True, True)}
SIZES = [(5, 3, 4, 6), (3, 7, 17, 33), (4, 1, 1, 1), (2, 13, 40, 40), (1, 2, 3, 130)]


def draw(cell, time, batch, inputs, seed=0, dtype=np.float32):
    """Draw params, a state and inputs, with the same values in every dtype."""
    rng = np.random.default_rng(seed)
    batch = batch if isinstance(batch, tuple) else (batch,)
    noise = lambda a, scale: jnp.asarray((scale * rng.standard_normal(a.shape)).astype(np.float32), dtype)
    shapes = jax.eval_shape(lambda k: cell.init(k, inputs), jax.random.key(0))
    params = jax.tree.map(lambda a: noise(a, 0.5 * max(a.shape[0], 1) ** -0.5), shapes)
    state = jax.tree.map(lambda a: noise(a, 0.5), cell.initial_state(params, batch))
    return params, state, noise(np.zeros((time, *batch, inputs)), 1.0)


def exact(cell, arguments, kw, reverse=False):
    """Return the result of `Scan()` in float64."""
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: jnp.asarray(np.asarray(a), jnp.float64), arguments)
        return jax.tree.map(np.asarray, run(cell, *wide, kw, Scan(), reverse))


def error(got, want):
    """Return the largest difference, relative to the largest entry of each array (of 1 at least)."""
    pairs = zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True)
    return max(
        np.abs(np.asarray(g, np.float64) - w).max(initial=0) / max(np.abs(w).max(initial=0), 1) for g, w in pairs
    )


@pytest.mark.parametrize(
    ("size", "how"),
    [(size, "masked_reverse") for size in SIZES] + [(SIZES[1], how) for how in MASKS if how != "masked_reverse"],
    ids=str,
)
@pytest.mark.parametrize("name", CELLS)
def test_equals_scan_in_float64(name, size, how):
    (time, batch, inputs, hidden), (masked, reverse) = size, MASKS[how]
    cell = CELLS[name](hidden)
    arguments = draw(cell, time, batch, inputs)
    kw = masks(time=time, batch=(batch,)) if masked else {}
    (_, out), gradients = run(cell, *arguments, kw, Native(), reverse)
    (_, want), want_gradients = exact(cell, arguments, kw, reverse)
    assert error(out, want) < 2e-6
    assert error(gradients, want_gradients) < 1e-5


@pytest.mark.parametrize(("first", "name"), [*enumerate(CELLS, 1)])
def test_odd_sizes(first, name):
    """Hidden sizes from 1 to 40, inputs and batches that no vector divides; gradients too."""
    for hidden in range(first, 41, 7):
        cell = CELLS[name](hidden)
        arguments = draw(cell, 3, 1 + hidden % 7, 1 + (7 * hidden) % 40, seed=hidden)
        got, want = (run(cell, *arguments, {}, driver)[1] for driver in (Native(), Scan()))
        assert error(got, jax.tree.map(np.asarray, want)) < 1e-5, hidden


TOLERANCES = {"float32": (2e-6, 1e-5), "bfloat16": (1e-2, 2e-2), "float16": (2e-3, 4e-3)}  # values, gradients


LONG = [*((name, "float32") for name in CELLS), ("lstm", "bfloat16"), ("min_gru", "bfloat16"), ("gru", "float16")]


@pytest.mark.optimised
@pytest.mark.parametrize(("name", "dtype"), LONG)
def test_a_thousand_steps(name, dtype):
    """Long sequences, and every kernel in a program compiled with optimizations."""
    cell = CELLS[name](24)
    arguments = draw(cell, 1024, 4, 8, dtype=jnp.dtype(dtype))
    (_, out), gradients = run_optimised(cell, *arguments, {}, Native())
    (_, want), want_gradients = exact(cell, arguments, {})
    values, slopes = TOLERANCES[dtype]
    assert error(out, want) < values
    assert error(gradients, want_gradients) < slopes
    assert {str(a.dtype) for a in jax.tree.leaves((out, gradients))} == {dtype}


def _use(isa):
    """Choose an instruction set; return whether this machine has it."""
    try:
        library.use_isa(isa)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("name", CELLS)
def test_every_instruction_set(name):
    """Each of this machine, in every dtype and precision, with padding and resets, in one compiled program."""
    cell, kw, here, found = CELLS[name](21), masks(time=4, batch=(9,)), library.isa(), []
    for dtype, precision in [*((d, None) for d in TOLERANCES), ("float32", "bfloat16"), ("float32", "bfloat16_3x")]:
        arguments = draw(cell, 4, 9, 5, dtype=jnp.dtype(dtype))
        driver = Native(precision=precision)
        f = quick.jit(functools.partial(value_and_gradients, cell, kw=kw, driver=driver))
        (_, want), want_gradients = exact(cell, arguments, kw)
        for isa in filter(_use, ["amx", "avx512", "avx2", "baseline"]):
            (_, out), gradients = jax.block_until_ready(f(*arguments))
            library.use_isa(here)
            found.append(isa)
            bound = {"bfloat16": 2e-2, "bfloat16_3x": 1e-4, None: TOLERANCES[dtype][1]}[precision]
            assert error((out, gradients), (want, want_gradients)) < bound, (isa, dtype, precision)
    assert here in found


def test_the_state_has_a_dtype_of_its_own():
    """Params in bfloat16 and the state in float32: `select` takes the kernel, and two halves give the whole."""
    cell, time = LSTM(8), 6
    params, state, xs = draw(cell, time, 3, 4, dtype=jnp.bfloat16)
    run = functools.partial(jaxrnn.unroll, cell, params, state_dtype=jnp.float32, driver=Native())
    final, ys = run(xs, state)
    assert (final.c.dtype, final.h.dtype, ys.dtype) == (jnp.float32, jnp.float32, jnp.bfloat16)
    middle, first = run(xs[:2], state)
    assert same_bits((final, ys), (lambda s, y: (s, jnp.concatenate([first, y])))(*run(xs[2:], middle)))
    kinds = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, jnp.float32), state)
    assert select(cell, xs.shape, jnp.bfloat16, "cpu", kinds) == Native()


def test_precision_is_named_as_jax_names_it():
    names = {
        "float32": ["highest", "float32", jax.lax.Precision.HIGHEST, "F32_F32_F32"],
        "bfloat16_x3": ["high", "bfloat16_3x", jax.lax.DotAlgorithmPreset.BF16_BF16_F32_X3],
        "bfloat16": ["default", "bfloat16", jax.lax.Precision.DEFAULT, "BF16_BF16_F32"],
    }
    for want, given in names.items():
        for name in given:
            assert passes(Native(precision=name).precision) == want
            assert Native(precision=name) == Native(precision=given[0])
    assert passes(Native().precision) == "float32"
    with jax.default_matmul_precision("bfloat16"):
        assert passes(Native().precision) == "bfloat16"
    for name in ("default", "high", "TF32_TF32_F32"):  # under which JAX's own dots on a CPU are in float32
        with jax.default_matmul_precision(name):
            assert passes(Native().precision) == "float32"
    for wrong in ("bf16", 3, jax.lax.DotAlgorithmPreset.F64_F64_F64):
        with pytest.raises(ValueError, match=r'Native\.precision is "float32", "bfloat16_3x" or "bfloat16"'):
            Native(precision=wrong)


def test_the_gradient_of_the_reset_state_is_summed_in_float32():
    """Its sum over a thousand resets, in bfloat16, where such a sum would stop growing."""
    cell = LearnedState(Elman(4))
    params = cell.init(jax.random.key(0), 3)
    xs, resets = jnp.ones((1024, 1, 3), jnp.bfloat16), jnp.ones((1024, 1), bool)

    def grad(dtype):
        given = jax.tree.map(lambda a: a.astype(dtype), (params, xs))
        loss = lambda p, x: jaxrnn.unroll(cell, p, x, resets=resets, driver=Native())[1].astype(jnp.float32).sum()
        return jax.tree.map(lambda a: np.asarray(a, np.float64), quick.jit(jax.grad(loss))(*given))

    assert error(grad(jnp.bfloat16), grad(jnp.float32)) < 2e-2


@pytest.mark.parametrize("batch", [9, 13, 17, 25])
def test_any_cut_of_the_rows(batch):
    """Parts of the batch, some of which have so few rows that inputs of several steps are projected together."""
    cell = LSTM(64)
    params, state, xs = draw(cell, 64, batch, 64)
    want = jaxrnn.unroll(cell, params, xs, state, driver=BPTT())
    got = [jaxrnn.unroll(cell, params, xs, state, driver=Native()) for _ in range(3)]
    assert far(got[0], want) < 1e-5
    assert same_bits(got[0], got[1])
    assert same_bits(got[0], got[2])


def test_bfloat16_keeps_half_the_memory():
    cell = LSTM(8)

    def temporary(dtype):
        params, state, xs = draw(cell, 512, 8, 4, dtype=dtype)
        f = quick.jit(lambda p, x: jax.grad(lambda p: jaxrnn.unroll(cell, p, x, state)[1].sum())(p))
        return f.lower(params, xs).compile().memory_analysis().temp_size_in_bytes

    assert temporary(jnp.bfloat16) < 0.55 * temporary(jnp.float32)


@pytest.mark.optimised
def test_splits_of_time_equal_the_whole_bit_for_bit():
    cell, time = LSTM(20), 12
    params, state, xs = draw(cell, time, 5, 7)
    kw = masks(time=time, batch=(5,))
    whole = jaxrnn.unroll(cell, params, xs, state, driver=Native(), **kw)
    for cut in range(time + 1):
        parts, s = [], state
        for a, b in ((0, cut), (cut, time)):
            lengths = jnp.clip(kw["lengths"] - a, 0, b - a)
            s, ys = jaxrnn.unroll(cell, params, xs[a:b], s, lengths=lengths, resets=kw["resets"][a:b], driver=Native())
            parts.append(ys)
        assert same_bits((s, jnp.concatenate(parts)), whole)


@pytest.mark.parametrize("batch", [(), (2, 3), (0,)], ids=str)
def test_any_number_of_batch_axes(batch):
    cell = GRU(6)
    arguments = draw(cell, 4, batch, 3)
    got, want = (run(cell, *arguments, {}, driver) for driver in (Native(), Scan()))
    assert far(got, want) < 1e-5


def test_no_steps_give_back_the_state():
    for make in CELLS.values():
        cell = make(6)
        params, state, xs = draw(cell, 0, 3, 4)
        (_, (final, ys)), gradients = run(cell, params, state, xs, {}, Native())
        assert far(final, state) == 0
        assert ys.shape == (0, 3, 6)
        assert all((g == 0).all() for g in jax.tree.leaves(gradients[0]))


@pytest.mark.optimised
def test_nan_in_the_padding_changes_no_bit():
    cell = LSTM(20)
    params, state, xs = draw(cell, 6, 3, 4)
    lengths = jnp.array([6, 2, 0])
    bad = jnp.where((jnp.arange(6)[:, None] < lengths)[..., None], xs, jnp.nan)
    clean, dirty = (run_optimised(cell, params, state, x, {"lengths": lengths}, Native()) for x in (xs, bad))
    assert same_bits(clean[0], dirty[0])
    assert same_bits(clean[1], dirty[1])


def test_a_reset_stops_what_is_not_finite():
    cell = MinGRU(20)
    params, state, xs = draw(cell, 6, 3, 4)
    resets = jnp.zeros((6, 3), bool).at[3].set(True)
    (_, (final, ys)), gradients = run(cell, params, state, xs.at[1].set(jnp.inf), {"resets": resets}, Native())
    assert not np.isfinite(ys[1:3]).any()
    assert np.isfinite(ys[3:]).all()
    assert np.isfinite(final).all()
    assert np.isfinite(gradients[2][3:]).all()


@pytest.mark.parametrize("make", [GRU, MinGRU])
@pytest.mark.parametrize("mapped", ["data", "params", "both"])
def test_vmap_in_value_and_gradient(mapped, make):
    cell, size = make(10), 3
    params, state, xs = draw(cell, 4, (size, 2), 5)
    many = jax.tree.map(lambda a: jnp.stack([a, 0.5 * a, -a]), params)
    axes = {"data": (None, 0, 1), "params": (0, None, None), "both": (0, 0, 1)}[mapped]
    arguments = (many if axes[0] == 0 else params, *((state, xs) if axes[1] == 0 else (state[0], xs[:, 0])))

    kw = {"resets": jnp.arange(4)[:, None] == jnp.array([2, 1])}

    def mapped_run(driver):
        one = lambda *args: value_and_gradients(cell, *args, kw, driver)
        each = quick.jit(jax.vmap(one, axes))(*arguments)  # a gradient for each member
        loss = lambda *args: jax.vmap(lambda *a: value_and_gradients(cell, *a, {}, driver)[0][0], axes)(*args).sum()
        return each, quick.jit(jax.grad(loss, (0, 1, 2)))(*arguments)  # and one for all

    assert far(mapped_run(Native()), mapped_run(Scan())) < 1e-5


def test_vmap_twice():
    cell = LSTM(6)
    params, state, xs = draw(cell, 3, (2, 3, 2), 4)
    one = lambda driver: lambda s, x: jax.grad(lambda p: total(*jaxrnn.unroll(cell, p, x, s, driver=driver)))(params)
    twice = lambda driver: quick.jit(jax.vmap(jax.vmap(one(driver), (0, 1)), (0, 1)))(state, xs)
    assert far(twice(Native()), twice(Scan())) < 1e-5


@pytest.mark.parametrize("make", [LSTM, MinGRU])
def test_second_order_checkpoint_and_forward_mode(make):
    cell = make(5)
    params, state, xs = draw(cell, 4, 2, 3)
    f = lambda b, driver: total(*jaxrnn.unroll(cell, params._replace(b=b), xs, state, driver=driver))
    second = lambda d: quick.jit(jax.jacrev(jax.grad(functools.partial(f, driver=d))))(params.b)
    assert far(second(Native()), second(Scan())) < 1e-5
    native = functools.partial(f, driver=Native())
    kept, again = (quick.jit(jax.grad(g))(params.b) for g in (native, jax.checkpoint(native)))
    assert far(kept, again) < 2e-6
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(native, (params.b,), (params.b,))


@pytest.mark.optimised
@pytest.mark.parametrize("make", [LSTM, MinGRU])
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
def test_a_sharded_batch_stays_sharded(kind, make):
    cell = make(6)
    params, _, xs = draw(cell, 3, 16, 4)
    kw = masks(time=3, batch=(16,))
    f = jax.jit(jax.value_and_grad(lambda p, x, kw: total(*jaxrnn.unroll(cell, p, x, driver=Native(), **kw)), (0, 1)))
    want = f(params, xs, kw)
    with jax.set_mesh(jax.make_mesh((8,), ("data",), axis_types=(kind,))):
        lay = lambda a, *spec: jax.device_put(a, NamedSharding(jax.sharding.get_mesh(), PartitionSpec(*spec)))
        arguments = (
            jax.tree.map(lay, params),
            lay(xs, None, "data"),
            {
                "lengths": lay(kw["lengths"], "data"),
                "resets": lay(kw["resets"], None, "data"),
            },
        )
        got = f(*arguments)
        assert got[1][1].sharding.spec[1] == "data"
        assert "all-gather" not in f.lower(*arguments).compile().as_text()
    assert far(jax.device_get(got), jax.device_get(want)) < 1e-4


@pytest.mark.parametrize("make", [GRU, MinGRU])
def test_shard_map_sums_the_gradient_over_devices(make):
    cell = make(6)
    params, _, xs = draw(cell, 3, 16, 4)
    f = lambda p, x: total(*jaxrnn.unroll(cell, p, x, driver=Native()))
    want = jax.jit(jax.value_and_grad(f))(params, xs)
    with jax.set_mesh(jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))):
        specs = (PartitionSpec(), PartitionSpec(None, "data"))
        whole = jax.shard_map(lambda *a: jax.lax.psum(f(*a), "data"), in_specs=specs, out_specs=PartitionSpec())
        got = jax.jit(jax.value_and_grad(whole))(params, xs)
    assert far(jax.device_get(got), jax.device_get(want)) < 1e-4


@pytest.mark.optimised
def test_export_says_what_it_needs_and_then_works():
    cell = GRU(6)
    params, _, xs = draw(cell, 3, 2, 4)
    f = jax.jit(lambda x: jaxrnn.unroll(cell, params, x, driver=Native(exported=None))[1])
    with pytest.raises(ValueError, match="jaxrnn_forward"):
        export.export(f)(xs)
    made = export.export(f, disabled_checks=[export.DisabledSafetyCheck.custom_call("jaxrnn_forward")])(xs)
    again = export.deserialize(made.serialize())
    assert same_bits(again.call(xs), f(xs))


@pytest.mark.optimised
def test_many_threads_at_once_give_the_bits_of_one():
    cell = LSTM(16)
    params, state, xs = draw(cell, 6, 4, 8)
    f = jax.jit(lambda p, x: value_and_gradients(cell, p, state, x, {}, Native()))
    want = jax.block_until_ready(f(params, xs))
    start = threading.Barrier(8)

    def many(_):
        start.wait()
        return all(same_bits(f(params, xs), want) for _ in range(25))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(many, range(8)))


@pytest.mark.optimised
def test_memory_does_not_grow():
    cell = GRU(16)
    params, state, xs = draw(cell, 6, 4, 8)
    f = jax.jit(lambda p, x: value_and_gradients(cell, p, state, x, {}, Native()))

    def call(times):
        for _ in range(times):
            jax.block_until_ready(f(params, xs))

    call(200)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    call(2000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4096  # KiB


def test_unsupported_cells_raise():
    xs = jnp.ones((3, 2, 4))
    for cell, message in [
        (PeepholeLSTM(5), "has no kernel"),
        (ProjectedLSTM(5, 3), "has no kernel"),
        (LSTM(5, recurrence=Diagonal()), "dense recurrent weights"),
        (LSTM(5, recurrence=type("Other", (jaxrnn.Dense,), {})()), "dense recurrent weights"),
        (Elman(5, activation=jnp.sin), "has no kernel"),
    ]:
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(lambda k: jaxrnn.unroll(cell, cell.init(k, 4), xs, driver=Native()), jax.random.key(0))
    cell = GRU(5)
    params, state, _ = draw(cell, 3, 2, 4)
    mixed = params._replace(b=params.b.astype(jnp.bfloat16))
    with pytest.raises(ValueError, match="takes params of one dtype; got bfloat16 and float32"):
        jaxrnn.unroll(cell, mixed, xs, driver=Native())
    with jax.enable_x64(True), pytest.raises(ValueError, match="float64: it takes float32, bfloat16 and float16"):
        jaxrnn.unroll(cell, params, xs, state, state_dtype=jnp.float64, driver=Native())


def test_a_subclass_does_not_inherit_the_kernel():
    class Other(LSTM):
        def gate(self, s, u, v):
            return s

    assert Other(3).native() is None
    assert LSTM(3).native() == "lstm"


@pytest.mark.parametrize(
    ("precision", "message"),
    [
        ("float32", r"needs w_x of shape \(4, 4, 5, \)"),
        ("half", "has no precision named 'half'"),
    ],
)
def test_wrong_arguments_are_an_error_not_a_crash(precision, message):
    one = jnp.ones((2, 3, 4))
    none = jnp.zeros(0)
    call = jax.ffi.ffi_call("jaxrnn_forward", [jax.ShapeDtypeStruct((2, 3, 5), jnp.float32)] * 3)
    with pytest.raises(jax.errors.JaxRuntimeError, match=message):
        jax.block_until_ready(
            call(
                one, one, one, jnp.ones((4, 5)), jnp.ones((0, 5)), jnp.ones((2, 3, 5)), none,
                none.astype(bool), none.astype(bool), cell="lstm", precision=precision, reverse=False,
            )
        )  # fmt: skip


@pytest.mark.parametrize("cell", [LSTM(20), GRU(20), Elman(20)], ids=str)
def test_an_infinite_input_reaches_the_gradients_that_it_reaches_under_scan(cell):
    """The lanes past the last unit multiply infinity by zero; nothing of them may reach a gradient."""
    params, xs = cell.init(jax.random.key(0), 3), jnp.ones((4, 2, 3)).at[1, 0, 0].set(jnp.inf)
    loss = lambda xs, driver: jaxrnn.unroll(cell, params, xs, driver=driver)[1].sum()
    got, want = (jax.grad(loss)(xs, driver) for driver in (Native(), jaxrnn.Scan()))
    np.testing.assert_array_equal(jnp.isfinite(got), jnp.isfinite(want))


def test_select_takes_it_where_it_can():
    take = lambda cell, shape=(100, 32, 4), dtype=jnp.float32, platform="cpu": select(cell, shape, dtype, platform)
    for make in CELLS.values():
        assert all(take(make(8), dtype=jnp.dtype(dtype)) == Native() for dtype in TOLERANCES)
    others = [take(PeepholeLSTM(8)), take(LSTM(8), dtype=jnp.complex64), take(LSTM(8), dtype=None)]
    others += [take(LSTM(8), platform="gpu"), take(LSTM(8), (1, 2, 4))]
    assert not any(isinstance(driver, Native) for driver in others)


def test_without_the_library(monkeypatch):
    monkeypatch.setattr(library, "load", lambda: "jaxrnn's native library is not available: for a test.")
    assert "for a test" in available_drivers()["Native"]
    assert select(LSTM(8), (100, 32, 4), jnp.float32, "cpu") == BPTT(32, keep_gates=True)
    with pytest.raises(RuntimeError, match=r"for a test.*C\+\+ compiler"):
        jaxrnn.unroll(LSTM(5), LSTM(5).init(jax.random.key(0), 4), jnp.ones((3, 2, 4)), driver=Native())


def _shared(path):
    """Return the functions of an object file of which a linker takes one copy for all instruction sets."""
    lines = subprocess.run(["nm", "-C", path], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in lines if line[17:18] in "WVu"]


FLAGS = {
    "avx512": "-mavx512f -mavx512dq -mfma",
    "avx2": "-mavx2 -mfma",
    "baseline": "",
    "amx": "-DJAXRNN_TILES -DJAXRNN_EMULATED_TILES",  # with the instructions of its tiles in C++
}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the harness is built for x86-64")
@pytest.mark.parametrize(
    ("sanitizer", "emulate", "cache"), [("thread", False, 2**14), ("address,undefined", True, 2**21)]
)
def test_the_kernels_under_a_sanitizer(sanitizer, emulate, cache, tmp_path):
    """The kernels and how their work is cut, without XLA, called from several threads: no report, the same bits.

    Where the weights exceed the second-level cache, threads share each step, and outputs are stored past the caches.
    Small jobs are cut too.
    """
    native, here = pathlib.Path(jaxrnn.__file__).parent / "_kernels" / "cpu", library.isa().replace("amx", "avx512")
    build = f"g++ -std=c++17 -O1 -g1 -Wno-psabi -DJAXRNN_POISON -fsanitize={sanitizer} -I{native} -pthread".split()
    build += [f"-DJAXRNN_L2={cache}", "-DJAXRNN_MIN_FLOPS=1"]
    linked = ["amx", "baseline"] if emulate else [here]
    parts = [(isa, "kernel") for isa in linked] + [(isa, "memory") for isa in linked if isa != "amx"]
    at = lambda isa, part: tmp_path / f"{isa}-{part}.o"
    compile_one = lambda isa, part: [*build, *FLAGS[isa].split(), "-c", native / f"{part}.cc", "-o", at(isa, part)]
    running = [subprocess.Popen(compile_one(*part)) for part in parts]
    assert [process.wait() for process in running] == [0] * len(parts)
    assert not [
        name
        for isa, part in parts
        for name in _shared(at(isa, part))
        if "::" in name and f"jaxrnn::{isa}::" not in name
    ]
    options = [f"-DISA={linked[0]}", *(f"-DHAS_{isa}" for isa in linked), *["-DJAXRNN_EMULATED_TILES"] * emulate]
    sources = [pathlib.Path(__file__).with_name("harness.cc"), native / "library.cc"]
    objects = [at(*part) for part in parts]
    subprocess.run([*build, *options, *sources, *objects, "-o", tmp_path / "harness"], check=True)
    done = subprocess.run([tmp_path / "harness"], capture_output=True, text=True)
    assert done.stdout == "the same\n", done.stdout + done.stderr
    assert done.stderr == ""
