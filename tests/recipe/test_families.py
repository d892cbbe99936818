"""A made-up kind of set, model library and metric, each added by one file and one row, work from end to end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

KIND = """
from typing import ClassVar

import torch

from soupcli.datasets.examples import ArrayExamples
from soupcli.datasets.kind import SetKind
from soupcli.recipe.sets import SetSpec


class StripesSet(SetSpec):
    kind: ClassVar[str] = "stripes"
    shows_examples: ClassVar[bool] = True
    labelled: ClassVar[bool] = True
    suffixes: ClassVar[tuple[str, ...]] = (".stripes",)

    stripes: int


def load(spec, given):
    inputs = torch.eye(4).repeat(spec.stripes, 1)
    return ArrayExamples(inputs, inputs.argmax(dim=1), f"stripes:{spec.stripes}")


KIND = SetKind(lambda spec, manifest, tasks: f"stripes:{spec.stripes}", load)
"""
LIBRARY = """
from typing import ClassVar

from torch import nn

from soupcli.networks.library import Library
from soupcli.networks.network import Network
from soupcli.networks.without_weights import make_without_weights
from soupcli.recipe.networks import NetworkSpec


class PlainNetwork(NetworkSpec):
    library: ClassVar[str] = "plain"

    plain: int


LIBRARY = Library(lambda spec, folder, trust: Network(make_without_weights(lambda: nn.Linear(spec.plain, spec.plain))))
"""
METRIC = """
from soupcli.metrics.loss import mean, weighted_mean
from soupcli.metrics.metric import Metric

MARGIN = Metric(lambda logits, labels: logits.double().gather(1, labels[:, None])[:, 0], mean, weighted_mean)
"""
START = """
import sys

sys.path.insert(0, sys.argv.pop(1))
import margin, plain, stripes
from soupcli.metrics.table import METRICS
from soupcli.recipe.networks import NETWORKS
from soupcli.recipe.sets import SETS

SETS["stripes"] = stripes.StripesSet
NETWORKS["plain"] = plain.PlainNetwork
METRICS["margin"] = margin.MARGIN
from soupcli.cli.app import run

sys.exit(run(sys.argv[1:]))
"""


@pytest.mark.long
def test_one_file_and_one_row(tmp_path: Path) -> None:
    """The recipe reads their keys, the report has their scores, and a wrong key is suggested from theirs."""
    for name, text in {"stripes": KIND, "plain": LIBRARY, "margin": METRIC, "start": START}.items():
        (tmp_path / f"{name}.py").write_text(text)
    for number in range(2):
        torch.save({"weight": torch.eye(4) * (2 + number), "bias": torch.zeros(4)}, tmp_path / f"run{number}.pt")
    recipe = "model: {plain: 4}\nval: {val: {stripes: 3}}\nmetric: margin\nmetrics: [accuracy]\n"

    def soup(text: str, *words: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "soup.yaml").write_text(text)
        command = [sys.executable, "start.py", str(tmp_path), *words]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    ran = soup(recipe, "greedy", "--ckpts", "run0.pt", "run1.pt", "--val", "val", "--json")
    assert ran.returncode == 0, ran.stderr
    report = json.loads(ran.stdout)
    assert [row["path"] for row in report["ingredients"]] == ["run1.pt", "run0.pt"]
    assert report["ingredients"][0]["scores"]["val"]["margin"]["value"] == 3.0
    assert report["ingredients"][0]["scores"]["val"]["accuracy"]["value"] == 1.0
    ran = soup(recipe.replace("stripes: 3", "stripse: 3"), "rank", "--ckpts", "run0.pt", "--val", "val")
    assert (ran.returncode, "did you mean 'stripes'?" in ran.stderr) == (2, True)
