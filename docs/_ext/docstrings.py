"""Docstrings are plain text with `code`: what reStructuredText would take for markup is escaped, and every public name
must have a docstring and a place in the reference."""

import ast
import importlib
import inspect
import re

from sphinx.util import logging

MODULES = ("jaxrnn", "jaxrnn.blocks", "jaxrnn.dynamics", "jaxrnn.dynamics.plots", "jaxrnn.extend", "jaxrnn.model")
MODULES += ("jaxrnn.forecast", "jaxrnn.train")
MODULES += tuple(f"jaxrnn.interop.{n}" for n in ("torch", "flax", "haiku", "keras", "equinox", "onnx"))

UNLISTED = {"jaxrnn.interop.onnx.Activation"}  # shown without an entry in the index, where the name has another meaning

log = logging.getLogger(__name__)


def escape(text):
    """Return text in which `*`, `|` and a final `_` outside code stand for themselves."""
    parts = re.split(r"(`+[^`]*`+)", text)
    parts[::2] = (re.sub(r"\\|\*|\||_(?!\w)", r"\\\g<0>", part) for part in parts[::2])
    parts[2::2] = (f"\\ {part}" if part[:1].isalnum() else part for part in parts[2::2])
    return "".join(parts)


def process(app, what, name, found, options, lines):
    """Escape a docstring, but for doctests and the names of fields."""
    blocks, code = [], False
    for line in lines:
        code = line.lstrip().startswith(">>>") or (code and bool(line.strip()))
        field = re.match(r"\s*(:[^:]+:|\.\. \w+::)", line)
        head = field[0] if field else ""
        if code or field or not blocks or blocks[-1][0]:
            blocks.append((code, head, [line[len(head) :]]))
        else:
            blocks[-1][2].append(line)
    texts = ["\n".join(block) for _, _, block in blocks]
    done = [head.replace("*", r"\*") + (t if c else escape(t)) for (c, head, _), t in zip(blocks, texts, strict=True)]
    lines[:] = "\n".join(done).split("\n")


def public(module):
    """Return the public names of a module: those it imports as themselves, and those it defines."""
    found = importlib.import_module(module)
    names = []
    for node in ast.parse(inspect.getsource(found)).body:
        if isinstance(node, ast.ImportFrom):
            names += [alias.name for alias in node.names if alias.asname == alias.name]
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
    values = {name: getattr(found, name) for name in names if not name.startswith("_")}
    return {name: value for name, value in values.items() if callable(value)}


def check(app, env):
    """Warn, which fails the build, about public names without a docstring or without an entry in the reference."""
    documented = set(env.get_domain("py").objects)
    for module in MODULES:
        for name, value in public(module).items():
            if not inspect.getdoc(value):
                log.warning("%s.%s has no docstring", module, name)
            if not {f"{module}.{name}", f"jaxrnn.{name}"} & (documented | UNLISTED):
                log.warning("%s.%s is not in docs/reference", module, name)


def setup(app):
    """Connect both."""
    app.connect("autodoc-process-docstring", process, priority=900)
    app.connect("env-check-consistency", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
