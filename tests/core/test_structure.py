"""The design in one line: cells and drivers never import each other; the core imports jax alone."""

import ast
import pathlib
import subprocess
import sys

import pytest

import jaxrnn

ROOT = pathlib.Path(jaxrnn.__file__).parent
LATE = {
    "optax",
    "flax",
    "orbax",
    "matplotlib",
    "torch",
    "rich",
    "onnx",
    "safetensors",
    "tyro",
    "keras",
    "haiku",
    "equinox",
}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def test_cells_and_drivers_never_import_each_other():
    for folder, other in (("cells", "drivers"), ("drivers", "cells")):
        for path in (ROOT / folder).glob("*.py"):
            assert not [name for name in imports(path) if other in name.split(".")], path


def test_the_core_imports_jax_alone():
    for path in [*ROOT.glob("*.py"), *(ROOT / "cells").glob("*.py"), *(ROOT / "drivers").glob("*.py")]:
        assert not LATE & {name.split(".")[0] for name in imports(path)}, path


def test_import_brings_in_nothing_late():
    code = f"import sys, jaxrnn; print(sorted({LATE!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "name", [n for n in dir(jaxrnn) if n[0].isupper() or n in ("unroll", "select", "pad", "generate")]
)
def test_every_public_name_is_documented(name):
    value = getattr(jaxrnn, name)
    assert (value.__doc__ or "").strip()
    assert not value.__doc__.startswith(f"{name}("), "a dataclass's own signature is no docstring"


def test_no_private_jax():
    for path in ROOT.rglob("*.py"):
        assert "jax._src" not in path.read_text(), path
