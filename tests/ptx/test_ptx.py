"""The kernel for GPUs without a GPU: compiled, its instructions interpreted, with the tests of `Fused`.

This needs jax's plugin for CUDA and ptxas, in the folder JAXRNN_CUDA: see CONTRIBUTING.md.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import mosaic_gpu as plgpu

import jaxrnn
from jaxrnn import GRU, LSTM, Elman, Fused, Heads, Scan
from jaxrnn._drivers import fused
from jaxrnn._kernels.pallas import tiling
from jaxrnn._kernels.pallas.hopper import Hopper

from ..core import test_fused
from ..core.table import draw, run
from ..core.test_fused import (  # noqa: F401 - pytest collects them here too
    test_bfloat16_is_summed_in_float32,
    test_composites,
    test_each_device_runs_its_rows,
    test_equals_scan_in_value_and_gradient,
    test_odd_sizes,
    test_vmap,
)
from . import emulated

pytestmark = pytest.mark.skipif(
    not emulated.CUDA, reason="JAXRNN_CUDA is not set to a folder with jax's plugin for CUDA"
)


@pytest.fixture(autouse=True, scope="module")
def on_an_emulated_gpu():
    jax.clear_caches()  # so that `Fused()` is traced again, with another kernel
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plgpu, "kernel", emulated.kernel)
        patch.setattr(fused, "_kernel", lambda driver, *a: Hopper(*a))
        patch.setattr(test_fused, "FUSED", Fused())
        patch.setattr(test_fused, "TOLERANCE", 2e-2)
        yield
    jax.clear_caches()


@pytest.mark.parametrize(
    ("cell", "dtype", "batch", "processors"),
    [
        (LSTM(64), jnp.bfloat16, 11, 132),
        (GRU(96, recurrence=Heads(2)), jnp.float16, 3, 132),
        (Elman(128), jnp.bfloat16, 3, 132),
        (LSTM(208), jnp.float32, 2, 132),
        (LSTM(32), jnp.bfloat16, 128, 4),
    ],
    ids=["two groups of blocks", "heads", "wide", "weights in shared memory", "many rows a block"],
)
def test_grids_of_several_thread_blocks(cell, dtype, batch, processors, monkeypatch):
    monkeypatch.setattr(tiling, "PROCESSORS", processors)
    operands = jax.tree.map(lambda a: a.astype(dtype), draw(cell, time=3, batch=(batch,)))
    wide = jax.tree.map(lambda a: a.astype(jnp.float32), operands)
    got = jax.tree.map(lambda a: a.astype(jnp.float32), run(cell, *operands, {}, Fused()))
    assert test_fused.close(got, run(cell, *wide, {}, Scan()))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("odd", [np.nan, np.inf], ids=str)
@pytest.mark.parametrize(
    "cell", [GRU(40), Elman(40, activation="relu"), Elman(96, activation="relu")], ids=["gru", "pads", "relu"]
)
def test_nan_and_inf_are_not_waited_for(cell, odd, dtype):
    """NaN and inf stay, and do not reach other rows. 40 and 96 units leave warps without a part of the product."""
    params, state, xs = jax.tree.map(lambda a: a.astype(dtype), draw(cell, time=3, batch=(3,)))
    params, state = params._replace(w_h=abs(params.w_h)), state.at[2, -1].set(odd)
    if np.isnan(odd):  # with all bits set, like the absent value
        bits = jnp.full((), -1, {2: jnp.int16, 4: jnp.int32}[jnp.dtype(dtype).itemsize])
        state = state.at[2, -1].set(jax.lax.bitcast_convert_type(bits, dtype))
    xs = xs.at[1, 0].set(odd)
    got, want = (jaxrnn.unroll(cell, params, xs, state, driver=driver)[1] for driver in (Fused(), Scan()))
    assert (jnp.isnan(got) == jnp.isnan(want)).all()
    assert (jnp.isinf(got) == jnp.isinf(want)).all()
    assert jnp.isfinite(got[:, 1]).all()
