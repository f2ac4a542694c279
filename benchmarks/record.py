"""Result files: rows, hardware, versions, flags, command and commit."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
from typing import Any

import jax

from . import processor

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = pathlib.Path(__file__).parent / "results"
PACKAGES = (
    *("jax", "jaxlib", "optax", "flax", "dm-haiku", "equinox", "keras", "torch", "onnxruntime", "numpy"),
    *("scikit-learn",),
)

FLAGS = ("XLA_FLAGS", "OMP_NUM_THREADS", "JAX_PLATFORMS", "JAX_DEFAULT_MATMUL_PRECISION")
"""Environment variables that change the measurements; each one that is set is recorded."""


def hardware() -> dict[str, Any]:
    """Describe this machine."""
    device = jax.devices()[0]
    return {
        **processor.describe(),
        "cores": len(os.sched_getaffinity(0)),
        "device": device.device_kind if device.platform != "cpu" else "cpu",
        "platform": device.platform,
    }


def folder() -> pathlib.Path:
    """Return `benchmarks/results/<hardware>`, or $OUT where that is set."""
    out = os.environ.get("OUT")
    return pathlib.Path(out) if out else RESULTS / slug(hardware())


def slug(machine: dict[str, Any]) -> str:
    """Return the folder name of a machine: the model of its GPU, or its processor with the number of cores."""
    cpu = f"{processor.name(machine)} {machine['cores']} cores"
    return re.sub(r"[^a-z0-9]+", "-", (cpu if machine["platform"] == "cpu" else machine["device"]).lower()).strip("-")


def versions() -> dict[str, str | None]:
    """Return the version of every package that may be measured; None where it is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def commit() -> str:
    """Return the commit, with a note where files differ from it; 'unknown' outside a checkout."""
    git = ["git", "-C", str(ROOT)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changes = ["status", "--porcelain", "--untracked-files=no", "--", "jaxrnn", "benchmarks/*.py", "examples/*.py"]
        dirty = subprocess.run([*git, *changes], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + (" with uncommitted changes" if dirty else "")


def write(name: str, rows: Any, path: pathlib.Path | None = None, **more: Any) -> pathlib.Path:
    """Write a result file, `<name>.json` in `folder()` unless a path is given, and return its path."""
    path = path or folder() / f"{name}.json"
    about = {
        "benchmark": name,
        "command": " ".join(["python", *sys.orig_argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "hardware": hardware(),
        "versions": versions(),
        "flags": {name: os.environ[name] for name in FLAGS if name in os.environ},
        **more,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join("  " + json.dumps(row) for row in rows)
    head = json.dumps(about, indent=1)[:-2]
    path.write_text(f'{head},\n "rows": [\n{lines}\n ]\n}}\n')
    return path


def read(path: pathlib.Path) -> dict[str, Any]:
    """Read a result file."""
    return json.loads(path.read_text())
