"""Processors side by side: a column each, from its own file alone."""

import dataclasses
import json

import pytest

from benchmarks import report, side_by_side
from benchmarks.result import read_all
from benchmarks.workload import Workload

from .test_report import HEAD, spread

NEW = {
    **{"cpu": "AMD EPYC", "vendor": "AMD", "family": 25, "model": 1, "stepping": 1, "microarchitecture": "Zen 3"},
    **{"vector_units": ["avx2", "f16c"], "caches": {"L1d": 2**15, "L2": 2**19, "L3": 2**25}},
    **{"cores": 2, "device": "cpu", "platform": "cpu"},
}
OLD = HEAD["hardware"]
GPU = {**NEW, "device": "NVIDIA H100", "platform": "gpu"}
SHAPES = ((128, 32, 64, 128), (16, 1, 128, 128))


def rows(ratios, dtype="float32"):
    """Rows of an LSTM at two shapes: `ratios` has the times of implementations over jaxrnn's."""
    for size in SHAPES:
        workload = dataclasses.asdict(Workload("lstm", *size, dtype=dtype))
        for name, ratio in {"jaxrnn select": 1.0, **ratios}.items():
            row = {
                "workload": workload,
                "name": name,
                "driver": None,
                "error": 1e-2,
                "tolerance": 2e-2,
                "equation": None,
            }
            yield row | {"seconds": spread(1e-3 * ratio), "over_select": spread(ratio), "compile_seconds": 0.1}


@pytest.fixture
def results(tmp_path):
    def write(machine, hardware, name, found, date="2026-01-02T03:04:05+00:00"):
        (tmp_path / machine).mkdir(exist_ok=True)
        head = {**HEAD, "benchmark": "peers", "hardware": hardware, "date": date, "rows": [*found]}
        (tmp_path / machine / f"{name}.json").write_text(json.dumps(head))

    write("old", OLD, "peers", rows({"torch": 1.5}))
    write("new", NEW, "peers", [*rows({"torch": 3.0, "onnxruntime": 0.5})][:-1], "2026-02-03T03:04:05+00:00")
    write("new", NEW, "bfloat16", rows({"torch": 4.0, "jaxrnn float32": 2.5}, "bfloat16"))
    write("gpu", GPU, "peers", rows({"torch": 9.0}))
    return tmp_path


def test_a_column_for_each_processor(results):
    page = report.markdown(results)
    head = "| T, B, I, H | AMD Zen 3, 2 cores | Some CPU avx2, 2 cores |"
    assert page.count(head) == 1
    assert "| lstm forward, **geometric mean** | 3.00 | 1.50 |" in page
    assert "| lstm forward, 16, 1, 128, 128 | 3.00 | 1.50 |" in page
    assert "| lstm forward, **geometric mean** | 4.00 |" in page
    assert "| lstm forward, 128, 32, 64, 128, bfloat16 | 2.50 |" in page
    assert "| 9.00 |" not in page.split("\n## gpu")[0]
    assert (
        "2 cores of AMD EPYC (Zen 3: family 25, model 1, stepping 1), avx2 f16c, L1d 32 KB, L2 512 KB, L3 32,768 KB."
        in page
    )
    assert page.index("### Implementations side by side: bfloat16") > page.index("### Implementations side by side\n")


def test_utterances_of_onnxruntime_have_a_table(results):
    """The last row of the new file is left out, which is that of the utterance."""
    (about,) = [about for about in side_by_side.COMPARISONS if "onnxruntime" in about.title]
    assert side_by_side.table(read_all(results), about) == ""
    path = results / "new" / "peers.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "rows": [*rows({"onnxruntime": 0.5})]}))
    table = side_by_side.table(read_all(results), about)
    assert table.splitlines()[2:] == ["| lstm forward, 16, 1, 128, 128 | 0.500 |"]


def test_a_mean_over_fewer_workloads_says_so(results):
    path = results / "old" / "peers.json"
    head = json.loads(path.read_text())
    path.write_text(json.dumps({**head, "rows": head["rows"][:2]}))
    about = side_by_side.Comparison("", "peers", side_by_side.time_over("torch"), each=False)
    table = side_by_side.table(read_all(results), about)
    assert table.splitlines()[2:] == ["| lstm forward, **geometric mean** | 3.00 | 1.50 (1 of 2) |"]


def test_readme_is_of_every_processor(results):
    text = report.readme_table(results)
    assert "| lstm forward, **geometric mean** | 3.00 | 1.50 |" in text
    assert "2026-01-02, [benchmarks/results/old/peers.json]" in text


def test_nothing_was_measured(tmp_path):
    assert side_by_side.page(read_all(tmp_path)) == ""
    with pytest.raises(ValueError, match=r"has no peers\.json of a CPU: run `python -m benchmarks peers`"):
        report.readme_table(tmp_path)
