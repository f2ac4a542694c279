"""`select` stands on the committed table."""

import pytest

from benchmarks import record
from benchmarks.peers.own import OWN

PEERS = record.RESULTS / "cpu-2-cores" / "peers.json"
DRIVERS = {peer.name for peer in OWN}


@pytest.mark.skipif(not PEERS.exists(), reason="no committed table of peers")
def test_select_is_within_a_tenth_of_the_best_driver():
    found = {}
    for row in record.read(PEERS)["rows"]:
        if row["name"] in DRIVERS:
            found.setdefault(str(row["workload"]), {})[row["name"]] = row["seconds"]["median"]
    assert found
    slower = {w: times["jaxrnn select"] / min(times.values()) for w, times in found.items()}
    assert {w: over for w, over in slower.items() if over > 1.1} == {}
