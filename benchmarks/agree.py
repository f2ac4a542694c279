"""The command `agree`: how far two runs of `peers` say the same."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

from . import record, timing

NEAR = 0.1


@dataclasses.dataclass(frozen=True)
class Agree:
    """Compare two result files of `peers`, row by row: of how many the medians agree within a tenth.

    Args:
        first: a result file.
        second: another one of the same suite on the same machine.
        json: the result file; by default `agree.json` in the folder of this hardware.
    """

    first: pathlib.Path
    second: pathlib.Path
    json: pathlib.Path | None = None

    def __call__(self) -> None:
        """Compare, print the shares and the rows that are farthest apart, write the file."""
        before, after = (_timed(path) for path in (self.first, self.second))
        rows = []
        for key in before.keys() & after.keys():
            one, two = before[key], after[key]
            found = {"workload": one["workload"], "name": one["name"]}
            found["seconds"] = two["seconds"]["median"] / one["seconds"]["median"]
            if one["name"] != "jaxrnn select":
                found["over_select"] = two["over_select"]["median"] / one["over_select"]["median"]
            rows.append(found)
        rows.sort(key=lambda row: (str(row["workload"]), row["name"]))
        shares = {measure: share([r[measure] for r in rows if measure in r]) for measure in ("seconds", "over_select")}
        for measure, found in shares.items():
            part = found["near"] / found["rows"]
            print(f"{measure}: {found['near']} of {found['rows']} rows within 10 % ({part:.1%}); {found['spread']}")
        path = record.write("agree", rows, self.json, files=[str(self.first), str(self.second)], shares=shares)
        print(f"results  {path}")


def share(ratios: list[float]) -> dict[str, Any]:
    """Count the ratios within a tenth of 1, either way round."""
    near = sum(max(r, 1 / r) <= 1 + NEAR for r in ratios)
    return {"rows": len(ratios), "near": near, "spread": timing.spread(ratios)}


def _timed(path: pathlib.Path) -> dict[tuple[str, str], Any]:
    """Return the rows that hold a time."""
    rows = record.read(path)["rows"]
    return {(str(row["workload"]), row["name"]): row for row in rows if "seconds" in row}
