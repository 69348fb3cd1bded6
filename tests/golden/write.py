"""Writes golden data of the present version: `python -m tests.golden.write COMMIT [ARRANGEMENT ...]`.

Run it only for a new data version, and keep the files of earlier versions, which every later version opens.
"""

from __future__ import annotations

import json
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import mrq_broker_mongo.server.layout as mongo_layout
import mrq_broker_redis.server.layout as redis_layout
import mrq_core.embedded.server.layout as sqlite_layout
from mrq_core.testing.clock import ManualClock
from tests.brokers import stop_servers
from tests.golden.stores import ARRANGEMENTS, FOLDER, PREFIX, Store
from tests.golden.story import fill, observed

VERSIONS = {
    "sqlite": (sqlite_layout.VERSION,),
    "redis": (redis_layout.VERSION,),
    "mongo": (mongo_layout.VERSION,),
    "redis+mongo": (redis_layout.VERSION, mongo_layout.VERSION),
}


def write(arrangement: str, commit: str) -> None:
    """Fills an empty broker, and writes its data and what a reader sees of them."""
    name = f"{arrangement}-{'-'.join(map(str, VERSIONS[arrangement]))}"
    with tempfile.TemporaryDirectory() as folder:
        store = Store(arrangement, Path(folder), f"{PREFIX}-{ARRANGEMENTS.index(arrangement)}")
        clock = ManualClock()
        with closing(store.open(clock)) as broker:
            fill(broker, clock)
            seen = observed(broker, clock)
        store.dump(FOLDER / f"{name}.{'sqlite3' if arrangement == 'sqlite' else 'data.json'}")
    expected = {"commit": commit, "arrangement": arrangement, "now_ms": clock.now_ms(), "observed": seen}
    text = json.dumps(expected, indent=1, sort_keys=True, ensure_ascii=False)
    (FOLDER / f"{name}.expected.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        for chosen in sys.argv[2:] or ARRANGEMENTS:
            write(chosen, sys.argv[1])
    finally:
        stop_servers()
