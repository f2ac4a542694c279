"""The Python blocks of each page run, in order, in one namespace; the install commands name extras that exist."""

import pathlib
import re
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [path.relative_to(ROOT) for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"))]
BLOCKS = {str(page): re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.S | re.M) for page in PAGES}


def run(page):
    """Run all Python blocks of a page in one namespace, and return it."""
    names = {"__name__": "page"}
    for number, block in enumerate(BLOCKS[page], 1):
        exec(compile(block, f"{page}, block {number}", "exec"), names)
    return names


@pytest.mark.parametrize("page", [page for page in BLOCKS if BLOCKS[page] and page != "README.md"])
def test_the_blocks_of_a_page_run(page):
    run(page)


def test_contributing_has_an_example_of_each_kind():
    names = " ".join(BLOCKS["CONTRIBUTING.md"])
    for base in ("GatedCell", "AffineCell", "WrappedCell", "Composite", "with_context", "lax.stop_gradient"):
        assert base in names


def test_the_readme_runs_and_its_program_learns(capsys):
    names = run("README.md")
    error = re.match(r"mean squared error.*: (\S+)\n", capsys.readouterr().out)
    assert float(error[1]) < 0.01
    jnp, unroll, key = names["jnp"], names["jaxrnn"].unroll, names["key"]
    cell, xs = names["Leaky"](4), jnp.ones((3, 2))
    assert unroll(cell, cell.init(key, 2), xs)[1].shape == (3, 4)
    assert names["y"].shape == (4, 8)
    assert names["solution"].converged
    lru = names["cell"]
    params, xs = lru.init(key, 2), jnp.ones((80, 2))
    assert jnp.allclose(names["split"](params, xs), unroll(lru, params, xs)[1], atol=1e-4)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "examples/intent/README.md", ".ci/run"])
def test_the_install_commands_name_extras_that_exist(name):
    listed = re.findall(r"pip install [^\n`]*?(?:\.|jaxrnn)\[([\w,]+)\]", (ROOT / name).read_text())
    assert listed
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(",".join(listed).split(",")) <= set(extras)
