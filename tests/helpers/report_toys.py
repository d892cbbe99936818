"""Reports as plain data, of any number of ingredients, without a network."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

from soupcli.figures.reports import ReadReport, Reports, gather
from soupcli.report.report import Report

SETS = ("val", "test", "shifted")


def score(value: float, metric: str = "accuracy", n: int = 400) -> dict[str, Any]:
    """One metric with its binomial standard error."""
    return {metric: {"value": value, "stderr": math.sqrt(value * (1 - value) / n), "n": n}}


def content(path: str) -> str:
    """The hash of an ingredient that is told by its path."""
    return f"sha256:{hashlib.sha256(path.encode(errors='surrogatepass')).hexdigest()}"


def ingredients(paths: list[str], sets: tuple[str, ...]) -> list[dict[str, Any]]:
    """Best first on the first set, others above and below."""
    found = []
    for number, path in enumerate(paths):
        scores = {
            name: score(0.9 - 0.002 * number - 0.1 * order + 0.004 * (number * 7 % 5) * order)
            for order, name in enumerate(sets)
        }
        found.append({"path": path, "hash": content(path), "bytes": 1000, "scores": scores})
    return found


def report(command: str, paths: list[str], **parts: Any) -> dict[str, Any]:
    """A report of `command` over ingredients at `paths`."""
    sets = parts.pop("sets", SETS)
    return {
        "schema": "soup-report/1",
        "command": command,
        "created": "2026-01-01T00:00:00+00:00",
        "versions": {"soup": "0.1.0", "torch": "2.15.0"},
        "device": "cpu",
        "recipe": {"metric": "accuracy", "val": {}},
        "ingredients": ingredients(paths, sets),
        "selecting_set": sets[0],
        "sets": list(sets),
        **parts,
    }


def ranked(paths: list[str], **parts: Any) -> dict[str, Any]:
    """What `soup rank` reports: every ingredient on all sets."""
    found = report("rank", paths, **parts)
    first = found["ingredients"][0]
    return found | {"best": {"path": first["path"], "scores": first["scores"]}}


def greedy(paths: list[str], *, kept: int = 2, command: str = "greedy", **parts: Any) -> dict[str, Any]:
    """What `soup greedy` reports: ingredients on the selecting set alone, the first `kept` are members."""
    best = ingredients(paths, SETS)[0]
    steps = [
        {
            "candidate": path,
            "score": 0.9 + 0.001 * number if number < kept else 0.89,
            "threshold": None if number == 0 else 0.9 + 0.001 * (min(number, kept) - 1),
            "accepted": number < kept,
            "reason": "start" if number == 0 else "better" if number < kept else "worse",
            "examples": 400,
            "seconds": 0.1,
        }
        for number, path in enumerate(paths)
    ]
    soup = {
        "path": "soup/model.safetensors",
        "hash": content(f"{command} soup"),
        "members": paths[:kept],
        "weights": [1 / kept] * kept,
        "scores": {name: score(0.92 - 0.1 * order) for order, name in enumerate(SETS)},
        "bytes": 1000,
    }
    found = report(
        command, paths, steps=steps, soup=soup, best={"path": best["path"], "scores": best["scores"]}, **parts
    )
    for ingredient in found["ingredients"]:
        ingredient["scores"] = {"val": ingredient["scores"]["val"]}
    return found


def learned(paths: list[str], *, layers: int = 4, affine: bool = False) -> dict[str, Any]:
    """What `soup learned` reports; with `affine` some coefficients are negative."""
    count = len(paths)
    rows = [[(number + layer) % count + 1.0 for number in range(count)] for layer in range(layers)]
    alpha = [
        [value / sum(row) - (0.2 if affine and number == 0 else 0.0) for number, value in enumerate(row)]
        for row in rows
    ]
    found = greedy(
        paths,
        kept=count,
        command="learned",
        uniform={"path": "", "scores": {"val": score(0.91), "test": score(0.8), "shifted": score(0.7)}},
    )
    found["steps"] = []
    names = [f"blocks.{layer}" for layer in range(layers)]
    found["soup"]["coefficients"] = {
        "layers": names,
        "members": paths,
        "alpha": alpha,
        "tensors": [[name] for name in names],
    }
    return found


def gathered(*documents: dict[str, Any]) -> Reports:
    """The reports as a figure takes them."""
    return gather([ReadReport(Path(f"{number}.json"), Report.model_validate(d)) for number, d in enumerate(documents)])
