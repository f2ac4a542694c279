"""The native library: loaded once from the folder of this file, its handlers registered with JAX."""

from __future__ import annotations

import ctypes
import functools
import logging
import pathlib

import jax

HANDLERS = (
    "jaxrnn_forward",
    "jaxrnn_backward",
    "jaxrnn_affine",
    "jaxrnn_memory_forward",
    "jaxrnn_memory_backward",
)
INSTALL_HINT = (
    "Install a C++ compiler (g++ or clang++) and install again from a checkout, `pip install -v .`, which shows why a "
    "build fails; or name BPTT() or Scan()."
)


@functools.cache
def load() -> ctypes.CDLL | str:
    """Load the library and register its handlers; return the reason where it cannot be loaded, which is logged once."""
    path = pathlib.Path(__file__).with_name("_kernels.so")
    if not path.exists():
        return _missing("it was not built, most likely because there was no C++ compiler")
    try:
        library = ctypes.CDLL(str(path))
        for name in HANDLERS:
            jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(library, name)), platform="cpu")
    except (OSError, AttributeError) as failure:
        return _missing(f"{path.name} does not load: {failure}")
    library.jaxrnn_isa.restype = ctypes.c_char_p
    library.jaxrnn_missing_tiles.restype = ctypes.c_char_p
    library.jaxrnn_residuals.restype = ctypes.c_int64
    return library


def _missing(why: str) -> str:
    reason = f"jaxrnn's native library is not available: {why}."
    logging.getLogger("jaxrnn").warning("%s On this CPU the drivers in JAX are used instead. %s", reason, INSTALL_HINT)
    return reason


def unavailable_reason() -> str | None:
    """Return why the library is not available; None if it is."""
    library = load()
    return library if isinstance(library, str) else None


def missing_tiles() -> str | None:
    """Return why matmuls in bfloat16 do not run on the tiles of AMX; None if they do."""
    if reason := unavailable_reason():
        return reason
    why = _library().jaxrnn_missing_tiles()
    return None if why is None else f"{why.decode()}: matmuls that may be in bfloat16 are computed in float32."


def num_residuals(kernel: str) -> int:
    """Return the numbers a unit and step that the backward pass of a kernel needs."""
    return int(_library().jaxrnn_residuals(kernel.encode()))


def isa() -> str:
    """Return the name of the instruction set that the kernels use: "amx", "avx512", "avx2" or "baseline"."""
    return str(_library().jaxrnn_isa().decode())


def use_isa(name: str) -> None:
    """Choose another instruction set, for tests; raise ValueError if this machine lacks it."""
    if not _library().jaxrnn_use_isa(name.encode()):
        raise ValueError(f"this machine has no {name!r}")


def _library() -> ctypes.CDLL:
    library = load()
    if isinstance(library, str):
        raise RuntimeError(f"{library} {INSTALL_HINT}")
    return library
