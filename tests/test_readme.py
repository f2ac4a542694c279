"""The programs of the README run; the install commands name existing extras."""

import contextlib
import io
import pathlib
import re
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.optimised
def test_the_programs_run_and_the_loss_decreases():
    text = (ROOT / "README.md").read_text()
    program, own_cell, _, long = re.findall(r"```python\n(.*?)```", text, re.S)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        names = {}
        exec(program, names)
        exec("import dataclasses\n" + own_cell, names)
    assert float(printed.getvalue().split()[-1]) < 0.01
    cell = names["Leaky"](4)
    xs = names["jnp"].ones((3, 2))
    key = names["jax"].random.key(0)
    assert names["jaxrnn"].unroll(cell, cell.init(key, 2), xs)[1].shape == (3, 4)
    gru, xs = names["jaxrnn"].GRU(4), names["jax"].random.normal(key, (80, 2))
    names |= {"gru": gru, "params": gru.init(key, 2), "xs": xs}
    exec(long, names)
    assert names["found"].converged
    assert names["split"](names["cell"].init(key, 2), xs).shape == (80, 64)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "examples/intent/README.md", ".ci/run"])
def test_install_commands_name_existing_extras(name):
    listed = re.findall(r"pip install [^\n`]*?(?:\.|jaxrnn)\[([\w,]+)\]", (ROOT / name).read_text())
    assert listed
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(",".join(listed).split(",")) <= set(extras)
