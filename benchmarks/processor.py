"""The processor of this machine, by the numbers that its maker gives it: a virtual machine hides its model name."""

from __future__ import annotations

import pathlib
import platform
from typing import Any, NamedTuple

VECTOR_UNITS = ("f16c", "avx2", "avx512f", "avx512_bf16", "amx_bf16")
"""Flags of Linux that decide which kernels can run, from the oldest; each one that is there is recorded."""
VENDORS = {"AuthenticAMD": "AMD", "GenuineIntel": "Intel"}
CPUINFO = pathlib.Path("/proc/cpuinfo")
CACHES = pathlib.Path("/sys/devices/system/cpu/cpu0/cache")


class Line(NamedTuple):
    """A line of the table of microarchitectures.

    Attributes:
        vendor: AMD or Intel.
        family: the number of the family.
        models: the numbers of its models.
        name: of the microarchitecture.
        steppings: those that belong to it.
    """

    vendor: str
    family: int
    models: tuple[range, ...]
    name: str
    steppings: range = range(256)


MICROARCHITECTURES = (
    Line("AMD", 23, (range(0x30, 0x50), range(0x60, 0x80), range(0x84, 0x85), range(0x90, 0xB0)), "Zen 2"),
    Line("AMD", 25, (range(0x00, 0x10), range(0x20, 0x60)), "Zen 3"),
    Line("AMD", 25, (range(0x10, 0x20), range(0x60, 0x80), range(0xA0, 0xB0)), "Zen 4"),
    Line("AMD", 26, (range(0x00, 0x30), range(0x40, 0x50), range(0x60, 0x80)), "Zen 5"),
    Line("Intel", 6, (range(0x55, 0x56),), "Skylake-SP", range(5)),
    Line("Intel", 6, (range(0x55, 0x56),), "Cascade Lake", range(5, 8)),
    Line("Intel", 6, (range(0x6A, 0x6B), range(0x6C, 0x6D)), "Ice Lake-SP"),
    Line("Intel", 6, (range(0x8F, 0x90),), "Sapphire Rapids"),
    Line("Intel", 6, (range(0xCF, 0xD0),), "Emerald Rapids"),
    Line("Intel", 6, (range(0xAD, 0xAF),), "Granite Rapids"),
)


def describe(cpuinfo: str | None = None, caches: pathlib.Path = CACHES) -> dict[str, Any]:
    """Return what is known of a processor.

    Args:
        cpuinfo: the text of Linux's /proc/cpuinfo; by default this machine's.
        caches: the folder of the caches of a core, as Linux has it.

    Returns:
        `cpu`, the name that the system gives it; `vendor`, `family`, `model`, `stepping` and `microarchitecture`, None
        where they are unknown; `vector_units`, those of `VECTOR_UNITS` that it has; `caches`, the bytes of the L1d, L2
        and L3 that core 0 uses.
    """
    if cpuinfo is None:
        cpuinfo = CPUINFO.read_text() if CPUINFO.exists() else ""
    pairs = (line.partition(":")[::2] for line in reversed(cpuinfo.splitlines()))
    found = {key.strip(): value.strip() for key, value in pairs}  # of the first core, which comes last here
    numbers = {key: _number(found.get(field)) for key, field in FIELDS.items()}
    vendor = found.get("vendor_id")
    about = {"cpu": found.get("model name", platform.processor()), "vendor": VENDORS.get(vendor or "", vendor)}
    flags = found.get("flags", "").split()
    return {
        **about,
        **numbers,
        "microarchitecture": microarchitecture(about["vendor"], **numbers),
        "vector_units": [unit for unit in VECTOR_UNITS if unit in flags],
        "caches": cache_sizes(caches),
    }


FIELDS = {"family": "cpu family", "model": "model", "stepping": "stepping"}


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None


def microarchitecture(vendor: str | None, family: int | None, model: int | None, stepping: int | None) -> str | None:
    """Return the name of a microarchitecture; None for one that the table lacks."""
    for line in MICROARCHITECTURES:
        of_model = any(model in models for models in line.models)
        if (line.vendor, line.family) == (vendor, family) and of_model and (stepping or 0) in line.steppings:
            return line.name
    return None


def name(about: dict[str, Any]) -> str:
    """Return the short name of a processor, from what a result file says of it.

    It is the vendor and the microarchitecture; family and model where the table lacks these; and where a file has no
    family either, the name that the system gave and the widest vector unit.
    """
    if about.get("microarchitecture"):
        return f"{about['vendor']} {about['microarchitecture']}"
    if about.get("family") is not None:
        return f"{about['vendor']} family {about['family']} model {about['model']}"
    known = [unit for unit in VECTOR_UNITS if unit in about.get("vector_units", ())]
    return " ".join([about["cpu"], *known[-1:]])


def cache_sizes(folder: pathlib.Path = CACHES) -> dict[str, int]:
    """Return the bytes of the data caches that a core uses: L1d and L2, its own, and L3, shared; {} where unknown."""
    found = {}
    for index in sorted(folder.glob("index*")):
        level, kind, size = ((index / part).read_text().strip() for part in ("level", "type", "size"))
        if kind != "Instruction":
            found[f"L{level}" + ("d" if kind == "Data" else "")] = int(size[:-1]) * {"K": 2**10, "M": 2**20}[size[-1]]
    return found
