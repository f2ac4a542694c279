"""The pages made of the result files: docs/benchmarks.md, its pictures, and the README's table."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

from . import (
    blocks,
    dynamics,
    matrix,
    oversubscription,
    plots,
    precision,
    record,
    side_by_side,
    tables,
    train_dtypes,
    vmap,
)
from .result import Result, read_all
from .side_by_side import Comparison

BEGIN, END = "<!-- benchmarks -->", "<!-- /benchmarks -->"
TORCH = Comparison("", "peers", side_by_side.time_over("torch"), each=False)
TITLES = {
    "peers": ("Implementations side by side", tables.peers),
    "scaling": ("Over the sequence, the batch and the width", tables.scaling),
    "memory": ("Memory of a gradient", tables.memory),
    "train": ("Training and latency", tables.train),
    "long": ("Long sequences", tables.long),
    "limit": ("Next to what the machine allows", tables.limit),
    "train_dtypes": ("Training in 16 bits", train_dtypes.page),
    "precision": ("Accuracy in 16 bits", precision.page),
    "matrix": ("Matrix memories", matrix.page),
    "blocks": ("Published blocks next to an LSTM", blocks.page),
    "dynamics": ("Fixed points and Lyapunov exponents", dynamics.page),
    "vmap": ("vmap over rows next to a batch axis", vmap.page),
    "oversubscription": ("With other processes on the same cores", oversubscription.page),
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
    every = read_all(results)
    parts = list(filter(None, [INTRODUCTION, side_by_side.page(every)]))
    for hardware, found in every.items():
        parts.append(f"## {hardware}\n\n{machine(found[0])}\n")
        parts += [section(result) for result in sorted(found, key=place) if result.benchmark in TITLES]
    return "\n".join(parts)


def place(result: Result) -> tuple[int, bool, str]:
    """Return where a result stands on the page: by command, the file that is named after it first."""
    return [*TITLES, result.benchmark].index(result.benchmark), result.name != result.benchmark, result.name


def all_pictures(results: pathlib.Path) -> dict[str, plots.Draw]:
    """Return every picture that docs/benchmarks.md shows."""
    found = [result for folder in read_all(results).values() for result in folder]
    return {name: draw for result in found for name, draw in plots.pictures(result).items()}


def machine(result: Result) -> str:
    """Name the hardware."""
    about = result.head["hardware"]
    vectors = f", {' '.join(about['vector_units'])}" if about.get("vector_units") else ""
    caches = ", ".join(f"{name} {size >> 10:,} KB" for name, size in about.get("caches", {}).items())
    device = "" if about["platform"] == "cpu" else f"{about['device']}; host: "
    return f"{device}{about['cores']} cores of {about['cpu']}{family(about)}{vectors}{caches and f', {caches}'}."


def family(about: dict[str, Any]) -> str:
    """Write the microarchitecture of a processor, and the numbers that it follows from; files of old lack them."""
    if about.get("family") is None:
        return " (its family was not recorded)"
    known = f"{about['microarchitecture']}: " if about["microarchitecture"] else ""
    return f" ({known}family {about['family']}, model {about['model']}, stepping {about['stepping']})"


def section(result: Result) -> str:
    """Write one result file: where it is from, its pictures, its tables."""
    title, write = TITLES[result.benchmark]
    title += "" if result.name == result.benchmark else f": {result.name}"
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
    """Return the README's table: torch over jaxrnn by processor."""
    every = read_all(results)
    known = side_by_side.chosen(every, "peers")
    if not known:
        raise ValueError(f"{results} has no peers.json of a CPU: run `python -m benchmarks peers`")
    torch = side_by_side.table(every, TORCH)
    origins = "; ".join(f"{side_by_side.column(result)}: {machine(result)[:-1]}, {where(result)}" for result in known)
    text = (
        "torch's time over jaxrnn's by processor, the geometric mean over the standard shapes: above 1 is slower than "
        f"jaxrnn. {origins}."
    )
    return f"{torch}\n\n{text}"


def where(result: Result) -> str:
    """Write the day and the link of a result file, as README has it."""
    path = f"benchmarks/results/{result.hardware}/{result.name}.json"
    return f"{result.head['date'][:10]}, [{path}]({path})"


def with_block(text: str, block: str, name: str = "README.md") -> str:
    """Replace the text between the two comments."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(END) < text.index(BEGIN):
        raise ValueError(
            f"{name} must have one line {BEGIN} and, below it, one line {END}; the table goes between them"
        )
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{block}\n{END}{rest.split(END)[1]}"
