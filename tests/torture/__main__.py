"""The long version of what `make test` tries for seconds: kills, hostile files, many at once, large ones.

    python -m tests.torture                                    # make torture: all of it, seed 0
    python -m tests.torture fuzz --seed 7 --inputs 1000        # a part of it

Prints what was tried and what it came to; ends with 1 where a promise was broken.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from tests.torture import faults, fuzz, hammer, hostile, kills, large, strangers

PARTS = ("kills", "fuzz", "strangers", "hostile", "faults", "hammer", "many", "large")


def main() -> int:
    """Runs the parts that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture")
    parser.add_argument("parts", nargs="*", default=PARTS, metavar="|".join(PARTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--inputs", type=int, default=4_000)
    parser.add_argument("--megabytes", type=float, default=100)
    parser.add_argument("--faults", type=int, default=800)
    parser.add_argument("--rounds", type=int, default=1_000)
    parser.add_argument("--ingredients", type=int, default=1_000)
    parser.add_argument("--gigabytes", type=float, default=10.0)
    given = parser.parse_args()
    seed = given.seed
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", UserWarning)
    for name in [name for name in os.environ if name.startswith("SOUP_")]:
        del os.environ[name]
    with tempfile.TemporaryDirectory(prefix="torture-") as place:
        here = Path(place)
        campaigns: dict[str, Callable[[], fuzz.Result]] = {
            "kills": lambda: kills.campaign(here / "kills", kills=given.kills, seed=seed),
            "fuzz": lambda: fuzz.campaign(here / "fuzz", inputs=given.inputs, seed=seed),
            "strangers": lambda: fuzz.campaign(
                here / "strangers", inputs=given.inputs // 5, seed=seed, make=strangers.all_targets
            ),
            "hostile": lambda: hostile.campaign(here / "hostile", size=int(given.megabytes * 1e6)),
            "faults": lambda: faults.campaign(here / "faults", faults=given.faults, seed=seed),
            "hammer": lambda: hammer.campaign(here / "hammer", processes=8, rounds=given.rounds, seed=seed),
            "many": lambda: large.many(here / "many", ingredients=given.ingredients),
            "large": lambda: large.one(here / "large", gigabytes=given.gigabytes),
        }
        return max([told(part, campaigns[part]) for part in given.parts])


def told(part: str, campaign: Callable[[], fuzz.Result]) -> int:
    """Runs one part and prints its counts and what was broken."""
    began = time.monotonic()
    counts, broken = campaign()
    print(f"{part}: {time.monotonic() - began:.0f} s, broken promises: {len(broken)}")
    for what, count in sorted(counts.items()):
        print(f"  {what}: {count}")
    for line in broken[:50]:
        print(f"  BROKEN {line}")
    sys.stdout.flush()
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
