"""Forecasts with intervals: `python -m examples.forecasting --help`.

Hourly load and oil temperature of a power transformer (ETTh1, 7 columns), 96 hours ahead, by a GRU over segments
(`examples.segment_forecaster`) that learns quantiles, next to a linear and a seasonal naive forecast. Without data it
learns a generated series.
"""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrnn.extend import extra
from jaxrnn.forecast import crps_from_quantiles, forecast_loss
from jaxrnn.train import EarlyStopping, fit

from . import bundle
from .baselines import fit_linear, repeat
from .segment_forecaster import HEAD, HORIZON, Predict, SegmentForecaster
from .series import DAY, WEEK, Data, generate, read, windows

with extra("examples"):
    import tyro
    from matplotlib.figure import Figure
    from rich.console import Console
    from rich.table import Table
    from tyro.conf import arg

DATA = Path(os.environ["JAXRNN_DATA"]) if "JAXRNN_DATA" in os.environ else None
PROGRAM = f"python -m {__package__}.forecasting"
PENALTIES = (10.0, 1e3, 1e4, 1e5)
console = Console(highlight=False, soft_wrap=True)


def evaluate(predict: Predict, data: Data, span: tuple[int, int], past: int) -> dict[str, Any]:
    """Return the means over all windows whose horizon lies in a span of hours, for the quantiles of `HEAD` or one.

    `mse` and `mae` are of the median, `crps` is the score of the distribution, `below` the share of the numbers that
    lie below each quantile.
    """

    @jax.jit
    def means(starts: jax.Array) -> dict[str, jax.Array]:
        quantiles, target = predict(windows(data.series, starts, past)), windows(data.series, starts + past, HORIZON)
        levels = HEAD.levels if quantiles.shape[-1] > 1 else (0.5,)
        error = target - quantiles[..., levels.index(0.5)]
        crps = crps_from_quantiles(levels, quantiles, target)
        each = {"mse": error**2, "mae": jnp.abs(error), "crps": crps, "below": target[..., None] < quantiles}
        return {name: values.astype(error.dtype).mean(axis=(0, 1, 2)) for name, values in each.items()}

    starts = np.arange(span[0] - past, span[1] - past - HORIZON + 1)
    parts = np.array_split(starts, -(-len(starts) // 128))  # of two sizes, so that two programs are compiled
    rows = [jax.device_get(means(part)) for part in parts]
    weights = [len(part) for part in parts]
    return {name: np.average([row[name] for row in rows], axis=0, weights=weights).tolist() for name in rows[0]}


@dataclasses.dataclass(frozen=True)
class Main:
    """Train on the first months, tune on the next, read the last ones once; write a bundle, a plot and the results."""

    data: Annotated[Path | None, arg(help="the folder with ett/ETTh1.csv ($JAXRNN_DATA); None: a generated series")] = (
        DATA
    )
    past: Annotated[int, arg(help="the hours that a forecast is made from")] = 336
    segment: Annotated[int, arg(help=f"the hours of a segment: a divisor of the past and of {HORIZON}")] = 48
    linear: Annotated[int, arg(help="the last hours whose linear map is added to the outputs; 0 for none")] = 336
    hidden: Annotated[int, arg(help="the units of the GRU, an even number")] = 128
    dropout: float = 0.5
    epochs: Annotated[int, arg(help="the number of epochs; the best one is kept")] = 15
    batch: Annotated[int, arg(help="the windows of a batch")] = 64
    rate: Annotated[float, arg(help="the first learning rate, which falls to 0")] = 1e-3
    seed: int = 0
    load: Annotated[bool, arg(help="use the bundle in --out in place of training")] = False
    out: Annotated[Path, arg(help="the folder for the bundle, the plot and the results")] = Path("runs/forecasting")

    def __call__(self) -> None:
        """Run the command."""
        if min(self.past, self.segment) < 1 or self.past % self.segment or HORIZON % self.segment:
            raise SystemExit(f"--segment must divide --past and {HORIZON}; got {self.segment} and {self.past}")
        if not 0 <= self.linear <= self.past:
            raise SystemExit(f"--linear must be between 0 and --past; got {self.linear} and {self.past}")
        if min(self.hidden, self.batch) < 1 or self.hidden % 2 or not 0 <= self.dropout < 1:
            raise SystemExit("--hidden must be even, --batch 1 or more, and --dropout at least 0 and below 1")
        data = generate(self.seed) if self.data is None else read(self.data)
        if self.past + HORIZON > data.train - self.batch:
            raise SystemExit(
                f"--past {self.past} and {HORIZON} hours exceed the part for training: choose a shorter past"
            )
        bundle.prepare(self.out)
        began = time.perf_counter()
        network = SegmentForecaster(len(data.columns), self.linear, self.segment, self.hidden, self.dropout)
        params, valid = self._load(network) if self.load else self.train(network, data)
        predictors = {"segments, GRU": network.quantiles(params)} | self._baselines(data)
        test = data.valid, len(data.series)
        results = {name: evaluate(predict, data, test, self.past) for name, predict in predictors.items()}
        seconds = time.perf_counter() - began
        about = {"program": PROGRAM, "valid": valid, "levels": HEAD.levels, "test": results, "seconds": seconds}
        about |= {"options": dataclasses.asdict(self) | {"data": str(self.data), "out": str(self.out)}}
        bundle.save(self.out, params, about)
        self._show(results)
        self._draw(data, predictors, results)

    def train(self, network: SegmentForecaster, data: Data) -> tuple[Any, dict[str, Any]]:
        """Return the params with the lowest CRPS on the part for validation, and the errors there."""
        count = data.train - self.past - HORIZON + 1

        def loss(params: Any, starts: jax.Array, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
            seen = windows(data.series, starts, self.past + HORIZON)
            outputs, scale = network(params, seen[: self.past], key)
            return forecast_loss(HEAD, outputs, seen[self.past :], scale=scale), {}

        def batches(epoch: int) -> list[np.ndarray]:
            order = np.random.default_rng((self.seed, epoch)).permutation(count)
            return [order[i : i + self.batch] for i in range(0, count - self.batch + 1, self.batch)]

        def valid(params: Any) -> dict[str, float]:
            found = evaluate(network.quantiles(params), data, (data.train, data.valid), self.past)
            return {name: value for name, value in found.items() if name != "below"}

        rate = optax.cosine_decay_schedule(self.rate, count // self.batch * self.epochs)
        k_params, k_dropout = jax.random.split(jax.random.key(self.seed))
        result = fit(
            loss,
            network.init(k_params),
            batches,
            optimizer=optax.adam(rate),
            epochs=self.epochs,
            key=k_dropout,
            evaluate=valid,
            early_stopping=EarlyStopping("crps"),
            progress=True,
        )
        return result.params, valid(result.params)

    def _load(self, network: SegmentForecaster) -> tuple[Any, dict[str, Any]]:
        """Return the params of the bundle, and the errors on the part for validation."""
        valid = bundle.about(self.out).get("valid", {})
        return bundle.load(self.out, jax.eval_shape(network.init, jax.random.key(0))), valid

    def _baselines(self, data: Data) -> dict[str, Predict]:
        """Return a seasonal naive and a linear forecast, each the best of some on the part for validation."""
        error = lambda predict: evaluate(predict, data, (data.train, data.valid), self.past)["mse"]
        naive = [repeat(period) for period in (DAY, WEEK) if period <= self.past]
        linear = [fit_linear(data, hours, p) for hours in {min(self.past, 2 * WEEK), self.past} for p in PENALTIES]
        return {"linear": min(linear, key=error), "seasonal naive": min(naive, key=error)}

    def _show(self, results: dict[str, Any]) -> None:
        table = Table("test", "MSE", "MAE", "CRPS", "in 50 %", "in 80 %", "in 95 %", box=None)
        for name, row in results.items():
            inside = [high - low for low, high in zip(row["below"][2::-1], row["below"][4:], strict=False)]
            table.add_row(name, *(f"{row[key]:.4f}" for key in ("mse", "mae", "crps")), *(f"{p:.1%}" for p in inside))
        console.print(table)
        console.print(f"bundle, plot  {self.out}", markup=False)

    def _draw(self, data: Data, predictors: dict[str, Predict], results: dict[str, Any]) -> None:
        """Draw the first forecast of the test in two columns, and the share of the test below each quantile."""
        figure = Figure(figsize=(12, 4), layout="constrained", dpi=130)
        *left, right = figure.subplots(1, 3)
        past = data.series[data.valid - self.past : data.valid, None]
        before, hours = np.arange(-HORIZON, HORIZON), np.arange(HORIZON)
        styles = {"color": "#2563eb"}, {"color": "#d97706", "lw": 1}, {"color": "#9aa5b1", "lw": 1, "ls": "--"}
        for axis, column in zip(left, (0, len(data.columns) - 1), strict=True):
            for (name, predict), style in zip(predictors.items(), styles, strict=True):
                found = np.asarray(predict(past))[:, 0, column]
                axis.plot(hours, found[:, found.shape[1] // 2], label=name, **style)
                for k, share in enumerate((0.15, 0.2, 0.25)[: found.shape[1] // 2]):
                    axis.fill_between(hours, found[:, k], found[:, -1 - k], color=style["color"], alpha=share, lw=0)
            axis.plot(before, data.series[data.valid + before, column], color="#1f2933", lw=0.9, label="observed")
            axis.set(title=data.columns[column], xlabel="hours", ylabel="standard deviations")
        figure.legend(*left[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
        right.plot(HEAD.levels, results["segments, GRU"]["below"], marker="o", color="#2563eb")
        right.plot([0, 1], [0, 1], color="#9aa5b1", ls=":")
        right.set(title="calibration on the test", xlabel="level of the quantile", ylabel="share of the numbers below")
        figure.savefig(self.out / "forecast.png")


def main() -> None:
    """Run the command; report a bundle that cannot be used in one line."""
    try:
        tyro.cli(Main, prog=PROGRAM)()
    except bundle.BundleError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
