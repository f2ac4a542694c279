"""Series of hours: ETTh1 from a folder, or a generated one; and their windows."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

MONTH, DAY, WEEK = 30 * 24, 24, 7 * 24


class Data(NamedTuple):
    """A standardized series (T, C), the names of its columns, and where the parts for training and validation end."""

    series: jax.Array
    columns: list[str]
    train: int
    valid: int


def read(folder: Path) -> Data:
    """Read ETTh1 and standardize it by its first 12 months; 4 months for validation and 4 for the test follow."""
    path = folder / "ett" / "ETTh1.csv"
    try:
        header, *rows = path.read_text().splitlines()
        numbers = np.array([row.split(",")[1:] for row in rows[: 20 * MONTH]], float)
    except FileNotFoundError as error:
        raise SystemExit(
            f"{path}: no such file. --data needs the folder that has ett/ETTh1.csv of ETDataset"
        ) from error
    except (OSError, ValueError) as error:
        raise SystemExit(
            f"{path}: cannot be read: {error}. It has a date and the numbers of one hour a line"
        ) from error
    if numbers.ndim != 2 or len(numbers) < 20 * MONTH or not np.isfinite(numbers).all():
        raise SystemExit(f"{path}: needs {20 * MONTH} hours of finite numbers; got an array {numbers.shape}")
    return standardized(numbers, header.split(",")[1:], 12 * MONTH, 16 * MONTH)


def generate(seed: int, months: tuple[int, int, int] = (5, 2, 2)) -> Data:
    """Return 7 random series: a season of a day, weaker at weekends, whose size drifts, and noise with a memory."""
    rng, hours = np.random.default_rng(seed), np.arange(sum(months) * MONTH)[:, None]
    shape = sum(rng.gamma(2, 1 / k, 7) * np.sin(2 * np.pi * (k * hours / DAY + rng.random(7))) for k in (1, 2, 3))
    size = np.exp(0.3 * _autoregression(rng, hours.size, 10 * DAY)) * np.where(hours // DAY % 7 < 5, 1.0, 0.5)
    numbers = size * (2 + shape) + 0.3 * _autoregression(rng, hours.size, DAY / 2)
    names = [f"series {c + 1}" for c in range(7)]
    return standardized(numbers, names, months[0] * MONTH, sum(months[:2]) * MONTH)


def _autoregression(rng: np.random.Generator, steps: int, memory: float) -> np.ndarray:
    """Return 7 series (T, 7) of variance 1 that forget within `memory` steps."""
    decay = np.exp(-1 / memory)
    numbers = rng.normal(size=(steps, 7))
    numbers[1:] *= np.sqrt(1 - decay**2)
    for t in range(1, steps):
        numbers[t] += decay * numbers[t - 1]
    return numbers


def standardized(numbers: np.ndarray, columns: list[str], train: int, valid: int) -> Data:
    """Return the data with mean 0 and variance 1 in the part for training."""
    mean, deviation = numbers[:train].mean(axis=0), numbers[:train].std(axis=0)
    return Data(jnp.asarray((numbers - mean) / np.maximum(deviation, 1e-6), jnp.float32), columns, train, valid)


def windows(series: jax.Array, starts: jax.Array, steps: int) -> jax.Array:
    """Return the windows (steps, B, C) of a series (T, C) from each of B starts."""
    return series[starts + jnp.arange(steps)[:, None]]
