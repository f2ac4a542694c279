"""The pages made of the result files: docs/benchmarks.md, its pictures, and the README's table."""

from __future__ import annotations

import dataclasses
import pathlib

from . import plots, record, tables
from .result import SELECT, Result, Row, distinct, figure, median, read, read_all
from .workload import Workload

BEGIN, END = "<!-- benchmarks -->", "<!-- /benchmarks -->"
README_RESULT = "amd-epyc-2-cores/peers.json"
README_SHAPES = ((128, 32, 64, 128), (256, 32, 128, 256))
TITLES = {
    "peers": ("Implementations side by side", tables.peers),
    "scaling": ("Over the sequence, the batch and the width", tables.scaling),
    "memory": ("Memory of a gradient", tables.memory),
    "train": ("Training and latency", tables.train),
    "long": ("Long sequences", tables.long),
    "limit": ("Next to what the machine allows", tables.limit),
}
"""What is shown, in this order."""
INTRODUCTION = """\
# Benchmarks

Made by `python -m benchmarks report` from `benchmarks/results/`; not to be edited.

Implementations run in turn (A B A B) and a ratio is taken round by round; times are medians, the quartiles are in the
files. forward+backward is sum(h²) with gradients for params and inputs. The input projection is included, compilation
is not. T time, B batch, I input features, H hidden units.
"""


@dataclasses.dataclass(frozen=True)
class Report:
    """Write docs/benchmarks.md, its pictures, and the README's table, from the result files.

    Args:
        results: the folder of result files, one folder in it for each machine.
        page: the Markdown file; its pictures go into the folder of the same name.
        readme: the file whose block between the two comments is replaced.
    """

    results: pathlib.Path = record.RESULTS
    page: pathlib.Path = record.ROOT / "docs" / "benchmarks.md"
    readme: pathlib.Path = record.ROOT / "README.md"

    def __call__(self) -> None:
        """Write all three."""
        text = with_block(self.readme.read_text(), readme_table(self.results), self.readme.name)
        self.page.parent.mkdir(parents=True, exist_ok=True)
        self.page.write_text(markdown(self.results))
        for name, draw in all_pictures(self.results).items():
            plots.save(draw, self.page.with_suffix("") / name)
        self.readme.write_text(text)
        print(f"wrote {self.page}, {self.page.with_suffix('')}/*.png and the table in {self.readme}")


def markdown(results: pathlib.Path) -> str:
    """Return the text of docs/benchmarks.md."""
    parts = [INTRODUCTION]
    for hardware, found in read_all(results).items():
        parts.append(f"## {hardware}\n\n{machine(found[0])}\n")
        ordered = sorted(found, key=lambda result: [*TITLES, result.benchmark].index(result.benchmark))
        parts += [section(result) for result in ordered if result.benchmark in TITLES]
    return "\n".join(parts)


def all_pictures(results: pathlib.Path) -> dict[str, plots.Draw]:
    """Return every picture that docs/benchmarks.md shows."""
    found = [result for folder in read_all(results).values() for result in folder]
    return {name: draw for result in found for name, draw in plots.pictures(result).items()}


def machine(result: Result) -> str:
    """Name the hardware."""
    about = result.head["hardware"]
    vectors = f", {' '.join(about['vector_units'])}" if about.get("vector_units") else ""
    device = "" if about["platform"] == "cpu" else f"{about['device']}; host: "
    return f"{device}{about['cores']} cores of {about['cpu']}{vectors}."


def section(result: Result) -> str:
    """Write one result file: where it is from, its pictures, its tables."""
    title, write = TITLES[result.benchmark]
    pictures = "".join(f"![{name}](benchmarks/{name})\n\n" for name in plots.pictures(result))
    path = f"benchmarks/results/{result.hardware}/{result.name}.json"
    return f"### {title}\n\n{origin(result)} [{path}](../{path})\n\n{pictures}{write(result)}\n"


def origin(result: Result) -> str:
    """Write command, date, commit, versions and flags."""
    head = result.head
    flags = "".join(f" `{name}={value}`" for name, value in head.get("flags", {}).items())
    commit = head["commit"]
    at = commit[:10] + commit[40:] if len(commit) >= 40 else commit
    return f"`{head['command'].strip()}`, {head['date'][:10]}, commit {at}; {versions(result)}.{flags}"


def versions(result: Result) -> str:
    """Name the versions of what was installed."""
    return ", ".join(f"{name} {version}" for name, version in result.head["versions"].items() if version)


def readme_table(results: pathlib.Path) -> str:
    """Return the README's table: each implementation's time over jaxrnn's, and where it is from."""
    result = read(results / README_RESULT)
    columns = [
        Workload(cell, *shape, gradient=gradient)
        for cell in ("lstm", "gru")
        for shape in README_SHAPES
        for gradient in (False, True)
    ]
    rows = [row for row in result.timed if row["workload"] in columns]
    if not rows:
        raise ValueError(f"{results / README_RESULT} has no row of the README's workloads: {columns[0]}, ...")
    frame = tables.frame([{**row, "text": readme_cell(row)} for row in rows])
    table = tables.pivot(frame, "name", "workload", "text", str).reindex(columns=columns)
    heads = [f"{w.cell.upper()} {w.kind}<br>{w.time}, {w.batch}, {w.inputs}, {w.hidden}" for w in columns]
    table = table.reindex(name for name in distinct(row["name"] for row in result.timed) if name in table.index)
    table = table.set_axis(heads, axis=1).rename(index=tables.starred(frame))
    return f"{tables.grid(table, 'T, B, I, H')}\n\n{readme_origin(result, columns)}"


def readme_cell(row: Row) -> str:
    """Write a ratio; for jaxrnn itself the time."""
    if row["name"] == SELECT:
        return f"1 ({figure(median(row['seconds']), 1e3)} ms)"
    return figure(median(row["over_select"]))


def readme_origin(result: Result, columns: list[Workload]) -> str:
    """Describe in one line what was measured, on what, with what, by which command, and where the rest is."""
    path = f"benchmarks/results/{README_RESULT}"
    equations = distinct(row["equation"] for row in result.timed if row.get("equation") and row["workload"] in columns)
    other = rf" \* Another equation: {', '.join(equations)}." if equations else ""
    return (
        f"Time over jaxrnn's, above 1 is slower than jaxrnn.{other} {machine(result)[:-1]}; {versions(result)};"
        f" `{result.head['command'].strip()}`; [{path}]({path}). More: [docs/benchmarks.md](docs/benchmarks.md)."
    )


def with_block(text: str, block: str, name: str = "README.md") -> str:
    """Replace the text between the two comments."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(END) < text.index(BEGIN):
        raise ValueError(
            f"{name} must have one line {BEGIN} and, below it, one line {END}; the table goes between them"
        )
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{block}\n{END}{rest.split(END)[1]}"
