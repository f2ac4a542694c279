"""The pages are what the result files say."""

import dataclasses
import itertools
import json

import pytest

from benchmarks import record, report
from benchmarks.plots import pictures
from benchmarks.result import figure, read, read_all, shape, small
from benchmarks.workload import Workload

SHAPES = ((128, 32, 64, 128), (256, 32, 128, 256))
HEAD = {
    "command": "python -m benchmarks peers",
    "date": "2026-01-02T03:04:05+00:00",
    "commit": "0123456789" * 4 + " with uncommitted changes",
    "hardware": {"cpu": "Some CPU", "cores": 2, "vector_units": ["avx2"], "device": "cpu", "platform": "cpu"},
    "versions": {"python": "3.12.3", "jax": "0.10.2", "keras": None},
    "flags": {"OMP_NUM_THREADS": "2"},
}


def spread(value):
    return {"median": value, "low": 0.9 * value, "high": 1.1 * value, "samples": 20}


def peers():
    """jaxrnn takes 2 ms, torch 1 or 4 (relu's equation for lstm), keras is not there."""
    for cell, size, gradient in itertools.product(("lstm", "gru"), SHAPES, (False, True)):
        workload = dataclasses.asdict(Workload(cell, *size, gradient=gradient))
        taken = 1e-3 if cell == "lstm" else 4e-3
        for name, seconds, driver in (
            ("jaxrnn select", 2e-3, "BPTT()"),
            ("jaxrnn Scan", 3e-3, None),
            ("torch", taken, None),
        ):
            row = {"workload": workload, "name": name, "driver": driver, "error": 3e-7, "seconds": spread(seconds)}
            equation = "relu" if name == "torch" and cell == "lstm" else None
            yield row | {"equation": equation, "compile_seconds": 0.2, "over_select": spread(seconds / 2e-3)}
        yield {"workload": workload, "name": "keras", "absent": "keras is not installed"}


def scaling():
    """Three axes, and a loop that was stopped."""
    for axis, field in (("T", "time"), ("B", "batch"), ("H", "hidden")):
        for size in (4, 8):
            workload = dataclasses.asdict(dataclasses.replace(Workload("lstm", 2, 2, 2, 2), **{field: size}))
            about = {"axis": axis, "workload": workload}
            for name in ("jaxrnn select", "naive lax.scan"):
                yield about | {"name": name, "seconds": spread(size * 1e-3), "compile_seconds": 0.3}
            yield about | {"name": "Python loop", "stopped": "too slow"}
    workload = dataclasses.asdict(Workload("lstm", 4, 2, 2, 2))
    yield {"axis": "loop", "workload": workload, "name": "Python loop", "seconds": spread(0.05), "ratio": spread(25.0)}


def memory():
    workload = dataclasses.asdict(Workload("gru", 4, 2, 2, 2, gradient=True))
    figures = {"temporary_bytes": 2_500_000, "arrays": 4.2, "process_bytes": 3_000_000, "process_arrays": 5.0}
    yield {"workload": workload, "name": "BPTT()", **figures, "seconds": spread(0.01)}
    yield {"workload": workload, "name": "torch", "absent": "torch is not installed"}


def train():
    yield {"part": "train", "name": "torch", "samples_per_second": spread(1234.0), "ratio": spread(1.5), "error": 1e-5}
    yield {"part": "latency", "name": "torch", "median_ms": 0.25, "p99_ms": 0.5, "error": 1e-6}
    yield {"name": "onnxruntime", "absent": "no gradients"}


def limit():
    workload = dataclasses.asdict(Workload("lstm", 4, 2, 2, 2))
    about = {"workload": workload, "bound_seconds": 1e-3, "step_limited_by": "weights"}
    yield about | {"name": "torch", "seconds": spread(4e-3), "percent": 25.0}


MACHINE = {
    "gemm": {"float32": {"jax": 2e11}},
    "levels": [{"name": "memory", "capacity": None, "bandwidth": 3e10}],
    "scan_step": 1e-7,
}


@pytest.fixture
def results(tmp_path):
    """A folder of result files."""
    folder = tmp_path / "results" / "amd-epyc-avx512f-2-cores"
    folder.mkdir(parents=True)
    flat = {"name": "jaxrnn Scan", "cell": "lstm", "gradient": True, "times": [64, 4096], "smallest": 1e-6}
    more = {
        "scaling": {"flatness": [flat | {"largest": 2e-6, "ratio": 2.0, "compile_seconds": [0.1, 0.2]}]},
        "limit": {"machine": MACHINE},
    }
    for make in (peers, scaling, memory, train, limit):
        name = make.__name__
        head = {"benchmark": name, **HEAD, **more.get(name, {}), "rows": list(make())}
        (folder / f"{name}.json").write_text(json.dumps(head))
    return folder.parent


def test_the_page(results):
    page = report.markdown(results)
    origin = "`python -m benchmarks peers`, 2026-01-02, commit 0123456789 with uncommitted changes; "
    assert origin + "python 3.12.3, jax 0.10.2. `OMP_NUM_THREADS=2`" in page
    assert "2 cores of Some CPU (its family was not recorded), avx2." in page
    assert "| T, B, I, H | jaxrnn select | jaxrnn Scan | torch\\* |" in page
    assert "| 128, 32, 64, 128 | 2.00 | 3.00 (1.50) | **1.00** (0.500) |" in page
    assert "| 128, 32, 64, 128 | **2.00** | 3.00 (1.50) | 4.00 (2.00) |" in page
    assert "(torch: lstm, relu)" in page
    assert "Absent (keras: keras is not installed)." in page
    assert "| torch\\* | 2.00 | 2.00 | 0.500 | 0.500 | 3e-7 | 0.200 | 20.0 |" in page
    assert "| lstm forward (128, 32, 64, 128) | `BPTT()` | jaxrnn select | 1.00 |" in page
    assert "| 8 | 8.00 | 8.00 |" in page
    assert "Absent (Python loop: too slow)." in page
    assert "| Python loop | 50.0 | 25.0 |" in page
    assert "| jaxrnn Scan, lstm forward+backward | 64 to 4096 | 1.00 to 2.00 | 2.00 | 0.100 to 0.200 |" in page
    assert "| BPTT() | 2.50 | 4.20 | 3.00 | 5.00 | 10.0 |" in page
    assert "| torch | 1,234 | 1.50 | 1e-5 |" in page
    assert "| torch | 0.250 | 0.500 | 1e-6 |" in page
    assert "| lstm forward (4, 2, 2, 2) | 1.00 | weights | 4.00 (25.0 %) |" in page


def test_the_command_writes_page_pictures_and_readme(results, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    command = report.Report(results, tmp_path / "docs" / "benchmarks.md", readme)
    command()
    page = (tmp_path / "docs" / "benchmarks.md").read_text()
    folder = tmp_path / "docs" / "benchmarks"
    drawn = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(drawn) == {f"amd-epyc-avx512f-2-cores-scaling-{name}.png" for name in ("T", "B", "H", "compile")} | {
        "amd-epyc-avx512f-2-cores-peers.png"
    }
    assert all(f"](benchmarks/{name})" in page for name in drawn)
    lines = readme.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("before", "after")
    assert any(line.startswith("| lstm forward, **geometric mean** |") for line in lines)
    assert "old" not in lines
    command()
    assert readme.read_text().splitlines() == lines
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == drawn


def test_a_readme_without_the_two_comments():
    with pytest.raises(ValueError, match=r"README.md must have one line <!-- benchmarks -->.*<!-- /benchmarks -->"):
        report.with_block("no comments", "table")


def test_a_file_that_is_no_result(tmp_path):
    path = tmp_path / "select.json"
    path.write_text('{"rows": []}')
    with pytest.raises(ValueError, match=r"select.json is no result file.*benchmark, command"):
        read(path)


@pytest.mark.parametrize(
    ("value", "text"), [(1234.5, "1,234"), (99.96, "100.0"), (0.01234, "0.0123"), (0.0, "0"), (None, "")]
)
def test_three_figures(value, text):
    assert figure(value) == text


def test_words():
    assert small(3.2e-7) == "3e-7"
    assert shape(Workload("lstm", 1, 2, 3, 4, heads=2, dtype="bfloat16")) == "1, 2, 3, 4, 2 heads, bfloat16"


def test_committed_pages_are_what_the_committed_results_say():
    again = "run `python -m benchmarks report`"
    page = record.ROOT / "docs" / "benchmarks.md"
    assert page.read_text() == report.markdown(record.RESULTS), again
    readme = (record.ROOT / "README.md").read_text()
    assert readme == report.with_block(readme, report.readme_table(record.RESULTS)), again
    shown = {name for found in read_all(record.RESULTS).values() for result in found for name in pictures(result)}
    assert {path.name for path in page.with_suffix("").glob("*.png")} == shown, again
