"""The shapes that are measured, by name; (T, B, I, H)."""

from __future__ import annotations

import dataclasses

from .result import FLOAT32, SELECT
from .workload import Workload

ALL = ("elman", "gru", "lstm")
QUICK = [(128, 1, 64, 64), (128, 32, 64, 128), (256, 32, 128, 256)]
MORE = [
    (128, 64, 512, 512),
    (1024, 8, 64, 64),
    (25, 16, 512, 512),
    (150, 16, 256, 256),
    (16, 1, 128, 128),
    (784, 100, 1, 128),
]


def _both(cell: str, shape: tuple[int, int, int, int], **more: int) -> list[Workload]:
    """Forward, and forward and backward."""
    return [Workload(cell, *shape, gradient=gradient, **more) for gradient in (False, True)]


def _each(shapes: list[tuple[int, int, int, int]]) -> list[Workload]:
    return [workload for shape in shapes for cell in ALL for workload in _both(cell, shape)]


def quick() -> list[Workload]:
    """Three sizes, each cell."""
    return _each(QUICK)


def standard() -> list[Workload]:
    """Small, middling and large; short and long; the shapes that papers and DeepBench use most."""
    return _each(QUICK + MORE) + _both("elman", (50, 16, 1760, 1760))


def deepbench() -> list[Workload]:
    """Baidu's DeepBench, its training and inference shapes: https://github.com/baidu-research/DeepBench."""
    train = [("elman", h, b, 50) for h in (1760, 2048, 2560) for b in (16, 32, 64, 128)]
    train += [("lstm", h, b, 25) for h in (512, 1024, 2048, 4096) for b in (16, 32, 64, 128)]
    train += [("lstm", 1536, b, 50) for b in (8, 16, 32)] + [("lstm", 256, b, 150) for b in (16, 32, 64)]
    train += [("gru", h, 32, t) for h, t in ((2816, 1500), (2048, 750), (1536, 375), (2560, 187))]
    train += [("gru", 1024, b, 1500) for b in (32, 64)]
    serve = [("lstm", h, b, 25) for h in (512, 1024, 2048) for b in (1, 2, 4)]
    serve += [("lstm", 1536, b, 50) for b in (1, 2, 4)] + [("lstm", 256, b, 150) for b in (1, 2, 4)]
    serve += [("elman", 1760, b, 50) for b in (1, 2, 4)]
    serve += [("gru", h, b, t) for h, t in ((2816, 1500), (2048, 750), (1536, 375), (2560, 187)) for b in (1, 2, 4)]
    serve += [("elman", 32, 1, 672), ("elman", 64, 1, 96)]
    rows = [workload for c, h, b, t in train for workload in _both(c, (t, b, h, h))]
    return rows + [Workload(c, t, b, h, h) for c, h, b, t in serve]


def flashrnn() -> list[Workload]:
    """FlashRNN's: T 1024, B 16, H 768 in heads (Pöppel et al., 2024, https://arxiv.org/abs/2412.07752)."""
    heads = (48, 24, 12, 6, 3, 1)
    return [w for n in heads for cell in ALL for w in _both(cell, (1024, 16, 768, 768), heads=n)]


def tiny() -> list[Workload]:
    """One small workload, for a dry run."""
    return _both("lstm", (4, 2, 3, 8))


def bfloat16() -> list[Workload]:
    """The standard workloads of 128 hidden units and more, in bfloat16."""
    return [dataclasses.replace(workload, dtype="bfloat16") for workload in standard() if workload.hidden >= 128]


SUITES = {suite.__name__: suite for suite in (quick, standard, bfloat16, deepbench, flashrnn, tiny)}
NAMES = {"bfloat16": (SELECT, "jaxrnn Native", FLOAT32, "torch")}
"""The implementations of a suite, where they are not all."""
