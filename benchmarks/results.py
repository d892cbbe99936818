"""Every seed of every demo, measured with the command line itself, into docs/results.md.

    python benchmarks/results.py                                  # make results: all demos, seeds 0 to 4
    python benchmarks/results.py --demos digits --seeds 0 1       # a part; docs/results.md is not written

Each ingredient family is made by `soup demo KIND DIR --seed S`, each soup by
`soup greedy --ckpts runs/*/ --val val test ... --with-uniform --json`; the figures are read from its report.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import yaml

DEMOS = ("digits", "text", "images")
SEEDS = (0, 1, 2, 3, 4)
PAGE = Path(__file__).parent.parent / "docs" / "results.md"
BEGIN, END = "<!-- soups: begin -->", "<!-- soups: end -->"


class Run(NamedTuple):
    """Accuracy in per cent by set, for each of the three."""

    seed: int
    best: dict[str, float]
    uniform: dict[str, float]
    greedy: dict[str, float]
    members: int
    ingredients: int


def measure(kind: str, seed: int, folder: Path) -> Run:
    """One family made and mixed by the command line."""
    soup("demo", kind, str(folder), "--seed", str(seed), "--quiet")
    sets = list(yaml.safe_load((folder / "soup.yaml").read_text())["val"])
    words = ["greedy", "--ckpts", "runs/*/", "--val", *sets, "--with-uniform", "--json", "--force"]
    report = json.loads(soup(*words, cwd=folder))
    return Run(
        seed,
        per_cent(report["best"]["scores"], sets),
        per_cent(report["uniform"]["scores"], sets),
        per_cent(report["soup"]["scores"], sets),
        len(report["soup"]["members"]),
        len(report["ingredients"]),
    )


def soup(*words: str, cwd: Path | None = None) -> str:
    """Standard output of `soup WORDS...`."""
    command = [sys.executable, "-m", "soupcli", *words]
    return subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, check=True, text=True).stdout


def per_cent(scores: dict[str, Any], sets: list[str]) -> dict[str, float]:
    """Accuracy by set, in the order of the recipe."""
    return {name: 100 * scores[name]["accuracy"]["value"] for name in sets}


def table(kind: str, runs: list[Run]) -> str:
    """One demo as a Markdown table: every seed, the means, and what the greedy soup gains."""
    sets = list(runs[0].best)
    lines = [
        f"### `soup demo {kind}`",
        "",
        "| seed | weights | " + " | ".join(sets) + " |",
        "| --- | --- |" + " ---: |" * len(sets),
    ]
    for run in runs:
        mixed = {"best ingredient": run.best, "uniform": run.uniform}
        mixed[f"greedy ({run.members} of {run.ingredients})"] = run.greedy
        for name, scores in mixed.items():
            lines.append(f"| {run.seed} | {name} | " + " | ".join(f"{scores[s]:.2f}" for s in sets) + " |")
    for name, of in (("best ingredient", "best"), ("uniform", "uniform"), ("greedy", "greedy")):
        means = [statistics.mean(getattr(run, of)[s] for run in runs) for s in sets]
        lines.append(f"| mean | {name} | " + " | ".join(f"{mean:.2f}" for mean in means) + " |")
    gains = [gain([run.greedy[s] - run.best[s] for run in runs]) for s in sets]
    lines.append("| **gain** | **greedy over best** | " + " | ".join(f"**{shown}**" for shown in gains) + " |")
    return "\n".join(lines) + "\n"


def gain(differences: list[float]) -> str:
    """Mean and standard error over seeds."""
    if len(differences) < 2:
        return f"{differences[0]:+.2f}"
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    return f"{statistics.mean(differences):+.2f} ± {error:.2f}"


def main() -> None:
    """Measures, prints the tables, and puts them into the page where everything was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--demos", nargs="+", choices=DEMOS, default=list(DEMOS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--folder", type=Path, help="where families are made and kept (default: a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        base = options.folder or Path(temporary)
        tables = []
        for kind in options.demos:
            runs = [measure(kind, seed, base / f"{kind}-{seed}") for seed in options.seeds]
            tables.append(table(kind, runs))
            print(tables[-1], flush=True)
    if tuple(options.demos) == DEMOS and tuple(options.seeds) == SEEDS:
        page = PAGE.read_text("utf-8")
        head, _, rest = page.partition(BEGIN)
        _, _, tail = rest.partition(END)
        PAGE.write_text(f"{head}{BEGIN}\n\n" + "\n".join(tables) + f"\n{END}{tail}", "utf-8")


if __name__ == "__main__":
    main()
