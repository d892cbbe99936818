"""What `soup inspect` says of families of which the truth is known: small networks, really trained, one fault each.

    python benchmarks/verdicts.py --half tuned           # the half that rules were made on
    python benchmarks/verdicts.py --half unseen          # other networks, data and seeds: rules were mended on it
    python benchmarks/verdicts.py --half fresh           # others again: the same
    python benchmarks/verdicts.py --half fourth          # others again, asked once
    python benchmarks/verdicts.py --half tuned --folder families/ --situations sweep strangers --kinds dense --show

Prints the confusion matrix of docs/results.md: a line for each situation, with the number of families whose cause was
named, with another cause named, and with none. Eight architectures times the situations of `families.py`,
five ingredients each if not said otherwise. `--folder` keeps families and their scores: rules are then asked again
without training or evaluating anything, as long as the networks' code is the same.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from families import FOURTH, FRESH, HEALTHY, SEEN, SITUATIONS, UNSEEN, Trainer, World, chosen
from safetensors.torch import save_file

import soupcli

NETWORKS = [Path(__file__).parent / name for name in ("small_networks.py", "fresh_networks.py", "fourth_networks.py")]
WORLDS = {world.name: world for world in (SEEN, UNSEEN, FRESH, FOURTH)}
HARMLESS = 1.5  # points that the mean of all may lack to the best ingredient: the fault did not show
# Named beside another cause these are no mistake: statistics are estimated again first, a small set is small.
BESIDE = {"batch-norm statistics", "too few validation examples"}


class Said(NamedTuple):
    """What was said of a family."""

    kind: str
    situation: str
    verdicts: list[dict[str, Any]]
    without_val: list[str]
    summary: str
    lost: float  # points by which the mean of all is below the best ingredient

    @property
    def causes(self) -> list[str]:
        """Names, without those that may stand beside any other."""
        return self._counting([v["cause"] for v in self.verdicts])

    @property
    def by_weights(self) -> list[str]:
        """The same of what is said without a set."""
        return self._counting(self.without_val)

    def _counting(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if name not in BESIDE or name == SITUATIONS[self.situation].cause]


def written(folder: Path, trainer: Trainer, situation: str) -> Path:
    """The family in files, made if it is not there."""
    world, kind, variant = trainer.world, trainer.kind, SITUATIONS[situation].variant
    place = folder / f"{world.name}-{situation.replace(' ', '-').replace(',', '')}-{kind}"
    if (place / "soup.yaml").exists():
        return place
    family = SITUATIONS[situation].make(trainer)
    for number, state in enumerate(family.states):
        (place / f"runs/{number:02d}").mkdir(parents=True, exist_ok=True)
        save_file(state, place / f"runs/{number:02d}/model.safetensors")
    if family.base is not None:
        (place / "base").mkdir(exist_ok=True)
        save_file(family.base, place / "base/model.safetensors")
    inputs, labels_n = world.val()
    some = slice(family.examples)
    save_file({"inputs": inputs[some].contiguous(), "labels": labels_n[some].clone()}, place / "val.safetensors")
    for module in NETWORKS:
        (place / module.name).write_text(module.read_text("utf-8"), "utf-8")
    args = {"kind": kind, "classes": world.classes, "side": world.side} | ({"variant": variant} if variant else {})
    model = f'{{python: "{world.networks}.py:build", args: {json.dumps(args)}}}'
    (place / "soup.yaml").write_text(f"model: {model}\nval:\n  val: {{arrays: val.safetensors}}\n", "utf-8")
    return place


def inspected(place: Path, val: Sequence[str] = ()) -> dict[str, Any]:
    """The inspection of `soup inspect`."""
    base = "base" if (place / "base").exists() else None
    with contextlib.chdir(place), contextlib.redirect_stderr(io.StringIO()):
        found = soupcli.inspect("runs/*/", base=base, val=val)
    report = json.loads(found.report.to_json())
    inspection: dict[str, Any] = report["inspection"]
    inspection["alone"] = [each["scores"].get("val") for each in report["ingredients"]]
    return inspection


def asked(folder: Path, trainer: Trainer, situation: str) -> Said:
    """What is said of one family, with the set and without it."""
    place = written(folder, trainer, situation)
    found, by_weights = inspected(place, ["val"]), inspected(place)
    summary, lost = effect_of(found)
    causes = [v["cause"] for v in by_weights["verdicts"]]
    return Said(trainer.kind, situation, found["verdicts"], causes, summary, lost)


def effect_of(found: dict[str, Any]) -> tuple[str, float]:
    """Scores in words, and points by which the mean of all is below the best; inf if they cannot be mixed."""
    if not found["barriers"]:
        return found["refused"], math.inf
    [barrier] = found["barriers"]
    soup = (barrier["settled_mean"] or barrier["mean"])["accuracy"]["value"]
    alone = [scores["accuracy"]["value"] for scores in found["alone"]]
    without = [each["accuracy"]["value"] for each in barrier["without"].values()]
    each, left = (" ".join(f"{100 * value:.0f}" for value in values) for values in (alone, without))
    return f"mean {100 * soup:.0f}, alone {each}, without each {left}", 100 * (max(alone) - soup)


def table(said: Sequence[Said]) -> str:
    """Markdown: a line for each situation."""
    lines = [
        "| situation | families | named | another cause named | nothing said | of these harmless | others named "
        "| by weights |",
        "|---|---:|---:|---:|---:|---:|---|---:|",
    ]
    for situation, (expected, _, _) in SITUATIONS.items():
        of = [one for one in said if one.situation == situation]
        if of:
            healthy = expected == HEALTHY
            named = sum(not one.causes if healthy else expected in one.causes for one in of)
            wrong = [cause for one in of for cause in one.causes if cause != expected]
            other = sum(any(cause != expected for cause in one.causes) for one in of)
            silent = sum(not one.causes for one in of)
            harmless = sum(not one.causes and one.lost < HARMLESS for one in of)
            alone = sum(not one.by_weights if healthy else expected in one.by_weights for one in of)
            names = ", ".join(sorted(set(wrong)))
            lines.append(f"| {situation} | {len(of)} | {named} | {other} | {silent} | {harmless} | {names} | {alone} |")
    return "\n".join(lines)


def totals(said: Sequence[Said]) -> str:
    """False alarms among the healthy; of the others how many are named, wrongly named, silent and harmful."""
    healthy = [one for one in said if SITUATIONS[one.situation].cause == HEALTHY]
    faulty = [one for one in said if one not in healthy]
    named = [one for one in faulty if SITUATIONS[one.situation].cause in one.causes]
    wrong = [one for one in faulty if any(cause != SITUATIONS[one.situation].cause for cause in one.causes)]
    silent = [one for one in faulty if not one.causes]
    harmful = [one for one in faulty if one.lost >= HARMLESS]
    alarms, by_weights = sum(bool(one.causes) for one in healthy), sum(bool(one.by_weights) for one in healthy)
    return (
        f"{len(healthy)} healthy families: {alarms} false alarms with scores, {by_weights} by weights\n"
        f"{len(faulty)} with a fault: {len(named)} named, {len(wrong)} wrongly, {len(silent)} silent; "
        f"{len(harmful)} harmful, of these {sum(one in named for one in harmful)} named"
    )


def show(one: Said) -> None:
    """Prints what was said of a family."""
    print(f"{one.situation}, {one.kind}: {one.causes} {one.without_val} {one.summary}", flush=True)
    for verdict in one.verdicts:
        print(f"    {verdict['cause']} ({verdict['sure']}): {verdict['evidence']}", flush=True)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", choices=list(WORLDS), required=True)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--situations", nargs="+", choices=list(SITUATIONS), default=list(SITUATIONS))
    parser.add_argument("--kinds", nargs="+", help="networks; default: all eight")
    parser.add_argument("--show", action="store_true", help="each family")
    parser.add_argument("--make", action="store_true", help="only train the families, and keep them in --folder")
    options = parser.parse_args()
    if options.make and options.folder is None:
        parser.error("--make keeps families: it needs --folder")
    torch.set_num_threads(1)
    began = time.monotonic()
    world: World = WORLDS[options.half]
    said = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.folder or Path(scratch)).absolute()
        os.environ["SOUP_CACHE"] = str(folder / "scores")
        trainers = {kind: Trainer(world, kind) for kind in options.kinds or world.kinds}
        for situation, kind in chosen(world, options.situations, options.kinds):
            if options.make:
                written(folder, trainers[kind], situation)
            else:
                said.append(asked(folder, trainers[kind], situation))
            if options.show and said:
                show(said[-1])
    if said:
        print(f"{table(said)}\n\n{totals(said)}\n{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
