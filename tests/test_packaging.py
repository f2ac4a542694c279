"""The contents of wheels and source distributions, and the errors on missing extras; nothing is compiled."""

import ast
import email
import importlib.metadata
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

import jaxrnn
from examples.intent.__main__ import main
from jaxrnn.train import Checkpoints
from jaxrnn.train._progress import Bar

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SOURCES = [*(ROOT / "jaxrnn").rglob("*.py"), *(ROOT / "examples").rglob("*.py")]
INTENT = ROOT / "examples/intent"
DATA = [ROOT / "jaxrnn/py.typed", *(INTENT / "corpus").iterdir(), *(INTENT / "static").iterdir()]
NATIVE = [path for kind in ("*.h", "*.cc") for path in (ROOT / "jaxrnn/_kernels/cpu").glob(kind)]
NEEDED = {"jax", "jaxlib", "numpy", "optax", "jaxrnn", *sys.stdlib_module_names}  # installed with jaxrnn


def names(paths):
    return {str(path.relative_to(ROOT)) for path in paths}


def run(*command, **options):
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, **options)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return a folder with the Python part of the wheel in `wheel`, and the metadata in `jaxrnn.egg-info`."""
    folder = tmp_path_factory.mktemp("built")
    commands = "build_py", "--build-lib", str(folder / "wheel"), "egg_info", "--egg-base", str(folder)
    done = run("setup.py", "-q", *commands, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_wheel_contains_the_library_and_the_examples(built):
    wheel = built / "wheel"
    found = {str(path.relative_to(wheel)) for path in wheel.rglob("*") if path.is_file()}
    assert found == {re.sub(r"^examples/", "jaxrnn_examples/", name) for name in names(SOURCES + DATA)}


def test_a_source_distribution_contains_the_sources_of_a_wheel(built):
    listed = (built / "jaxrnn.egg-info/SOURCES.txt").read_text().split("\n")
    found = {name for name in listed if ".egg-info/" not in name}
    rest = {"LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.py"}
    assert found == names(SOURCES + DATA + NATIVE) | rest


def test_the_metadata_has_the_version_and_no_relative_link(built):
    metadata = email.message_from_string((built / "jaxrnn.egg-info/PKG-INFO").read_text())
    assert metadata["Version"] == jaxrnn.__version__
    description, code = metadata.get_payload(), re.compile(r"```.*?```", re.S)
    assert description.startswith("# jaxrnn")
    assert code.findall(description) == code.findall((ROOT / "README.md").read_text())
    links = re.findall(r"\]\(([^)]+)\)", code.sub("", description))
    assert all(link.startswith("https://") for link in links), links


def test_the_installed_examples_run_under_their_package_name(built, tmp_path):
    """Run the files of the wheel in another directory, with a read-only home."""
    path = f"{built / 'wheel'}:{ROOT}"
    environment = {"PYTHONPATH": path, "HOME": "/dev/null/home", "JAX_PLATFORMS": "cpu", "PATH": ""}
    done = run("-m", "jaxrnn_examples.intent", "predict", "hello", "--bundle", "b", cwd=tmp_path, env=environment)
    assert done.returncode == 2
    note, error = done.stderr.splitlines()
    assert note.startswith("note: every start compiles again, since")
    assert error.endswith("Make one: python -m jaxrnn_examples.intent train --bundle b")


def imports(tree, extra=None):
    """Yield each imported package, with the extra named by the `with` around the import."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.With) and isinstance(call := node.items[0].context_expr, ast.Call):
            name = call.args[0].value if ast.unparse(call.func) == "extra" else extra
            yield from imports(node, name)
        elif isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], extra) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0], extra
        else:
            yield from imports(node, extra)


def test_optional_packages_are_imported_under_their_extra():
    bare, providers = [], importlib.metadata.packages_distributions()  # of "orbax": orbax-checkpoint
    for path in (ROOT / "jaxrnn").rglob("*.py"):
        for package, extra in imports(ast.parse(path.read_text())):
            listed = {re.match(r"[\w-]+", need)[0] for need in PROJECT["optional-dependencies"].get(extra, [])}
            if package not in NEEDED and listed.isdisjoint(providers.get(package, [package])):
                bare.append(
                    f"{path.relative_to(ROOT)}: {package} needs `with extra(...):` and a line in pyproject.toml"
                )
    assert not bare


@pytest.mark.parametrize(
    ("package", "use"),
    [
        ("orbax.checkpoint", lambda: Checkpoints("c").save(1, {})),
        ("rich.console", lambda: Bar(1)),
    ],
)
def test_the_error_on_a_missing_package_names_the_command(monkeypatch, package, use):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=re.escape('pip install "jaxrnn[train]"')):
        use()


def test_a_command_reports_a_missing_package_in_one_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tyro", None)
    assert main(["predict"]) == 2
    assert re.fullmatch(r'error: .*tyro.*pip install "jaxrnn\[examples\]"\n', capsys.readouterr().err)
