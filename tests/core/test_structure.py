"""The rooms of the library and its doors, read from the imports."""

import ast
import graphlib
import importlib
import pathlib
import re
import subprocess
import sys
import types

import pytest

import jaxrnn

ROOT = pathlib.Path(jaxrnn.__file__).parent
REPOSITORY = pathlib.Path(__file__).parents[2]
FLOORS = (
    ("_core",),
    ("_cells", "_layers", "_kernels"),
    ("_drivers",),
    ("_select", "_pad"),
    ("_unroll", "_generate"),
    ("__init__", "extend"),
    ("blocks", "model"),
    ("train", "interop", "dynamics", "forecast"),
)
"""A room imports from itself and from the floors below it. So cells, layers and drivers never import each other, but
for drivers that import kernels."""

PUBLIC = ("jaxrnn", "jaxrnn.blocks", "jaxrnn.dynamics", "jaxrnn.extend", "jaxrnn.model", "jaxrnn.train")
PUBLIC += ("jaxrnn.dynamics.plots", "jaxrnn.forecast")
PUBLIC += tuple(f"jaxrnn.interop.{name}" for name in ("torch", "flax", "keras", "haiku", "equinox", "onnx"))
LATE = {"optax", "flax", "orbax", "matplotlib", "torch", "rich", "onnx", "safetensors", "tyro", "keras", "haiku"}
LATE |= {"equinox", "jaxtyping"}

MODULES = {
    ".".join(p.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): p for p in ROOT.rglob("*.py")
}


def imported(module, path):
    """Yield the modules that a module of the package imports, its own package's included, types alone left out."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    tree = ast.parse(path.read_text())
    typing_only = {
        id(n)
        for t in ast.walk(tree)
        if isinstance(t, ast.If) and "TYPE_CHECKING" in ast.unparse(t.test)
        for n in ast.walk(t)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] + "." * bool(node.module) if node.level else ""
            source = base + (node.module or "")
            for name in node.names:
                yield f"{source}.{name.name}" if f"{source}.{name.name}" in MODULES else source


def room(module):
    return [*module.split("."), "__init__"][1]


IMPORTS = {module: set(imported(module, path)) for module, path in MODULES.items()}


def test_no_import_goes_up_or_across():
    floor = {name: height for height, names in enumerate(FLOORS) for name in names}
    for module, sources in IMPORTS.items():
        for source in sources & MODULES.keys():
            here, there = room(module), room(source)
            assert here == there or floor[there] < floor[here], f"{module} imports {source}"


def test_no_import_is_circular():
    inside = {module: {s for s in sources & MODULES.keys() if s != module} for module, sources in IMPORTS.items()}
    list(graphlib.TopologicalSorter(inside).static_order())


def test_the_core_imports_jax_alone():
    for module, sources in IMPORTS.items():
        if room(module) not in ("model", "train", "interop", "dynamics"):
            assert not LATE & {name.split(".")[0] for name in sources}, module


def test_import_brings_in_nothing_late():
    code = f"import sys, jaxrnn; print(sorted({LATE!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_private_jax():
    for path in ROOT.rglob("*.py"):
        assert "jax._src" not in path.read_text(), path


def test_dir_shows_public_names_alone():
    names = {name: value for name, value in vars(jaxrnn).items() if not name.startswith("_")}
    modules = {name for name, value in names.items() if isinstance(value, types.ModuleType)}
    assert modules <= {"blocks", "dynamics", "extend", "forecast", "model", "train", "interop"}
    assert {"unroll", "select", "generate", "pad", "LSTM", "Scan"} <= names.keys()


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_is_documented(module):
    optional = "interop" in module or "plots" in module
    package = pytest.importorskip(module) if optional else importlib.import_module(module)
    assert package.__doc__
    for name, value in vars(package).items():
        if not name.startswith("_") and getattr(value, "__module__", "").startswith("jaxrnn"):
            assert (value.__doc__ or "").strip(), name
            assert not value.__doc__.startswith(f"{name}("), f"{name}: a dataclass's own signature is no docstring"


OUTSIDE = [*REPOSITORY.glob("benchmarks/**/*.py"), *REPOSITORY.glob("examples/**/*.py"), *REPOSITORY.glob("*.md")]
OUTSIDE += REPOSITORY.glob("docs/**/*.md")


def test_what_is_outside_imports_public_names_alone():
    for path in OUTSIDE:
        text = path.read_text()
        lines = re.findall(r"^\s*(?:from (jaxrnn[\w.]*) import (.*)|import (jaxrnn[\w.]*))", text, flags=re.M)
        for source, names, module in lines:
            assert (source or module) in (*PUBLIC, "jaxrnn.interop"), (path, source or module)
            assert not re.search(r"\b_\w", names), (path, names)
        assert not re.search(r"\bjaxrnn\._(?!_)\w", text), f"{path} uses a private name"
