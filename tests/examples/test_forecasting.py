"""Forecasting at a tiny size: the data, the network, the baselines, the files and their errors."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from examples import bundle, forecasting, series
from examples.baselines import fit_linear, repeat
from examples.forecasting import Main
from examples.segment_forecaster import HEAD, HORIZON, SegmentForecaster

SMALL = {"data": None, "past": 96, "linear": 48, "hidden": 4, "epochs": 1, "batch": 256}


def write(folder, rows):
    (folder / "ett").mkdir()
    (folder / "ett" / "ETTh1.csv").write_text("\n".join(["date,HUFL,OT", *rows]) + "\n")
    return folder


def test_the_real_data_are_standardized_by_the_training_part(tmp_path):
    rows = [f"2016-07-01 00:00:00,{t % 24},{t}" for t in range(20 * series.MONTH + 5)]
    data = series.read(write(tmp_path, rows))
    assert data.series.shape == (14400, 2)
    assert data.columns == ["HUFL", "OT"]
    assert (data.train, data.valid) == (8640, 11520)
    np.testing.assert_allclose(data.series[: data.train].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(data.series[: data.train].std(0), 1, atol=1e-4)


def test_windows_are_consecutive_hours():
    data = series.generate(0, (1, 1, 1))
    assert data.series.shape == (3 * series.MONTH, 7)
    seen = series.windows(data.series, jnp.array([3, 50]), 5)
    np.testing.assert_array_equal(seen[:, 1], data.series[50:55])


def test_the_network_is_shared_by_columns_and_moves_with_their_level():
    network = SegmentForecaster(columns=3, linear=24, segment=24, hidden=6, dropout=0.5)
    params, past = network.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (48, 2, 3))
    params["columns"] = jnp.zeros_like(params["columns"])
    predict = network.quantiles(params)
    quantiles = predict(past)
    assert quantiles.shape == (HORIZON, 2, 3, HEAD.features)
    np.testing.assert_allclose(predict(past + 7), quantiles + 7, atol=1e-5)
    np.testing.assert_allclose(predict(past[..., ::-1]), quantiles[:, :, ::-1], atol=1e-5)
    drawn = network(params, past, jax.random.key(2)).outputs
    assert jnp.abs(drawn - network(params, past).outputs).max() > 1e-3


def test_the_linear_forecast_continues_a_sine_and_the_naive_one_repeats():
    hours = jnp.arange(900)[:, None]
    data = series.Data(jnp.sin(hours * 2 * jnp.pi / 24), ["sine"], 600, 750)
    for predict in (fit_linear(data, 48, 0.1), repeat(24)):
        found = forecasting.evaluate(predict, data, (data.valid, 900), 48)
        assert found["mse"] < 1e-3
        assert found["crps"] == pytest.approx(found["mae"], rel=1e-4)


def test_it_trains_writes_and_loads(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(forecasting, "generate", lambda seed: series.generate(seed, (1, 1, 1)))
    monkeypatch.setattr(forecasting, "PENALTIES", (1.0,))
    main = Main(**SMALL, out=tmp_path)
    main()
    about = bundle.about(tmp_path)
    assert [*about["test"]] == ["segments, GRU", "linear", "seasonal naive"]
    assert (tmp_path / "forecast.png").stat().st_size > 10_000
    below = about["test"]["segments, GRU"]["below"]
    assert below == sorted(below)
    assert "seasonal naive" in capsys.readouterr().out
    network = SegmentForecaster(7, 48, 48, 4, 0.5)
    params, valid = main._load(network)
    assert valid == about["valid"]
    data = series.generate(0, (1, 1, 1))
    assert forecasting.evaluate(network.quantiles(params), data, (data.train, data.valid), 96)["mse"] == valid["mse"]
    with pytest.raises(bundle.BundleError, match="does not fit this model"):
        main._load(SegmentForecaster(7, 48, 48, 6, 0.5))


def test_errors_are_one_line(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match=r"ETTh1\.csv: no such file. --data needs the folder"):
        series.read(tmp_path)
    with pytest.raises(SystemExit, match="needs 14400 hours of finite numbers; got an array"):
        series.read(write(tmp_path, ["2016-07-01,1,2"] * 30))
    (tmp_path / "ett" / "ETTh1.csv").write_text("date,OT\n2016-07-01,x\n")
    with pytest.raises(SystemExit, match="cannot be read: could not convert"):
        series.read(tmp_path)
    with pytest.raises(SystemExit, match="--segment must divide --past and 96; got 36 and 336"):
        Main(data=None, segment=36)()
    with pytest.raises(SystemExit, match="--linear must be between 0 and --past; got 336 and 96"):
        Main(data=None, past=96)()
    monkeypatch.setattr("sys.argv", ["forecasting", "--load", "--data", "None", "--out", str(tmp_path / "none")])
    with pytest.raises(SystemExit, match=r"no bundle there, since about\.json is missing"):
        forecasting.main()


def test_a_damaged_bundle_is_an_error(tmp_path):
    params = {"w": np.ones(3, np.float32)}
    bundle.save(tmp_path / "b", params, {"note": 1})
    assert bundle.load(tmp_path / "b", params)["w"].tolist() == [1, 1, 1]
    bundle.save(tmp_path / "b", {"w": np.full(3, np.nan, np.float32)}, {})
    with pytest.raises(bundle.BundleError, match="not finite"):
        bundle.load(tmp_path / "b", params)
    (tmp_path / "b" / "weights.safetensors").write_bytes(b"{}")
    with pytest.raises(bundle.BundleError, match="cannot be read"):
        bundle.load(tmp_path / "b", params)
    (tmp_path / "b" / "about.json").write_text(json.dumps([1]))
    with pytest.raises(bundle.BundleError, match="must be a JSON object"):
        bundle.about(tmp_path / "b")
    with pytest.raises(bundle.BundleError, match="cannot write there"):
        bundle.prepare(tmp_path / "b" / "about.json")
