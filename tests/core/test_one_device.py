"""On one device, unlike on the 8 of the other tests, `gates_of` merges time and batch into one axis."""

import pathlib
import subprocess
import sys

PROGRAM = """
import jax
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_disable_most_optimizations", True)
from jaxrnn import BPTT, Scan
from tests.core.table import CELLS, draw, far, masks, run
assert jax.device_count() == 1
for name in ("lstm", "gru_heads", "mine"):
    for driver in (BPTT(2), BPTT(2, keep_gates=True, hoist=2)):
        arguments = CELLS[name], *draw(CELLS[name], batch=(3, 2)), masks(batch=(3, 2))
        assert far(run(*arguments, driver), run(*arguments, Scan())) < 1e-10, (name, driver)
print("equal")
"""


def test_bptt_on_one_device_equals_scan():
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=root, capture_output=True, text=True)
    assert done.stdout.strip() == "equal", done.stderr
