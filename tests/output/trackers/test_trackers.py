"""`--report-to`: the libraries' own offline stores hold what the report says, and what came while it ran."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import soupcli
from soupcli.errors import MissingExtra, UsageError
from soupcli.output.trackers.table import TRACKERS, tracker_named
from tests.conftest import Ran

Soup = Callable[..., Ran]
WHY = "make trackers installs it"


class Told(NamedTuple):
    """What a tracker has kept of one run: its numbers step by step, its last ones, tables by name, files by name."""

    logged: Sequence[Mapping[str, Any]]
    last: Mapping[str, Any]
    tables: Mapping[str, Any]
    files: set[str]
    failed: bool


def of_trackio(_folder: Path) -> Told:
    storage = sys.modules["trackio.sqlite_storage"].SQLiteStorage
    [name] = storage.get_runs("soup")
    logs = storage.get_logs("soup", name)
    last = {key: value for log in logs for key, value in log.items()}
    kept = Path(os.environ["TRACKIO_DIR"])
    files = {str(file.name) for file in kept.rglob("*") if file.is_file()}
    names = {manifest["path"] for manifest in _manifests(kept)} | files
    tables = {key: value["_value"] for key, value in last.items() if isinstance(value, dict) and "_value" in value}
    return Told(logs, last, tables, names, failed="soup/failed" in last)


def _manifests(kept: Path) -> Iterator[Mapping[str, Any]]:
    with sqlite3.connect(kept / "soup.db") as database:
        tables = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
        for table in tables:
            if "artifact" in table:
                for row in database.execute(f"select * from {table}"):
                    for cell in row:
                        if isinstance(cell, str) and cell.startswith(("{", "[")):
                            yield from _paths(json.loads(cell))


def _paths(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, dict):
        if "path" in value:
            yield value
        for inner in value.values():
            yield from _paths(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _paths(inner)


def records_of(data: bytes) -> Iterator[bytes]:
    """The records of an offline file of wandb: blocks of 32 KiB as in LevelDB's log format, after 7 bytes."""
    place, whole = 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield whole
            whole = b""


def nested(items: Any) -> dict[str, Any]:
    """Values by key; a mapping comes in as many items as it has keys."""
    found: dict[str, Any] = {}
    for item in items:
        *above, last = item.nested_key or [item.key]
        place = found
        for key in above:
            place = place.setdefault(key, {})
        place[last] = json.loads(item.value_json)
    return found


def _until_its_end(file: Path, records: Any) -> list[Any]:
    """All records. The library's own process writes them, and may do so for a moment after the run."""
    found: list[Any] = []
    for _ in range(100):
        found = [records.Record.FromString(data) for data in records_of(file.read_bytes())]
        if found and found[-1].WhichOneof("record_type") == "exit":
            break
        time.sleep(0.1)
    return found


def of_wandb(folder: Path) -> Told:
    records: Any = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    [file] = folder.glob("wandb/offline-run-*/run-*.wandb")
    logged: list[Mapping[str, Any]] = []
    last: dict[str, Any] = {}
    files: set[str] = set()
    failed = False
    for record in _until_its_end(file, records):
        kind = record.WhichOneof("record_type")
        if kind == "history":
            logged.append(nested(record.history.item))
        elif kind == "summary":
            last |= nested(record.summary.update)
        elif kind in ("artifact", "request") and record.artifact.manifest.contents:
            files |= {Path(entry.path).name for entry in record.artifact.manifest.contents}
        elif kind == "exit":
            failed = record.exit.exit_code != 0
    tables = {}
    for log in logged:
        for key, value in log.items():
            if isinstance(value, dict) and value.get("_type") == "table-file":
                data = json.loads((file.parent / "files" / value["path"]).read_text())
                tables[key] = [dict(zip(data["columns"], row, strict=True)) for row in data["data"]]
            elif isinstance(value, dict) and "path" in value:
                files.add(value["path"])
    return Told(logged, last, tables, files, failed)


def of_mlflow(_folder: Path) -> Told:
    client = sys.modules["mlflow"].MlflowClient()
    [run] = client.search_runs([client.get_experiment_by_name("soup").experiment_id])
    logged: dict[int, dict[str, Any]] = {}
    for key in run.data.metrics:
        for metric in client.get_metric_history(run.info.run_id, key):
            logged.setdefault(metric.step, {})[key] = metric.value
    place = Path(client.download_artifacts(run.info.run_id, ""))
    files = {str(file.relative_to(place)) for file in place.rglob("*") if file.is_file()}
    tables = {}
    for file in place.glob("soup/*.json"):
        data = json.loads(file.read_text())
        if "columns" in data:
            tables[f"soup/{file.stem}"] = [dict(zip(data["columns"], row, strict=True)) for row in data["data"]]
    steps = [logged[step] for step in sorted(logged)]
    return Told(steps, run.data.metrics, tables, {Path(name).name for name in files}, run.info.status == "FAILED")


READERS: dict[str, Callable[[Path], Told]] = {"trackio": of_trackio, "wandb": of_wandb, "mlflow": of_mlflow}


@pytest.fixture(params=list(TRACKERS))
def tracker(request: pytest.FixtureRequest, family: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a tracker that is installed, which writes into the family's folder and reaches nobody."""
    name = str(request.param)
    monkeypatch.setenv("TRACKIO_DIR", str(family / "trackio"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(family))
    monkeypatch.setenv("WANDB_DATA_DIR", str(family / "wandb-data"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{family}/mlflow.db")
    for module in [module for module in sys.modules if module.partition(".")[0] == "trackio"]:
        monkeypatch.delitem(sys.modules, module)  # it asks for its folder when it is imported
    library: Any = pytest.importorskip(name, reason=WHY)
    yield name
    if name == "mlflow":
        library.end_run()  # of a test that failed: at exit the library would end it in ./mlflow.db
    if name == "wandb":
        library.teardown()  # it asks for its folder once


@pytest.mark.filterwarnings("default")
def test_greedy(tracker: str, family: Path, soup: Soup) -> None:
    """Scores of ingredients and mixtures come one by one; the end has summary, tables, figures, report and soup."""
    ran = soup("greedy", "--ckpts", "runs/*/", "--val", "val", "test", "--report-to", tracker, "--json")
    assert ran.code == 0, ran.stderr
    report = json.loads(ran.stdout)
    told = READERS[tracker](family)
    assert not told.failed
    alone = [log["soup/ingredient/val/accuracy"] for log in told.logged if "soup/ingredient/val/accuracy" in log]
    scores = {one["path"]: one["scores"]["val"]["accuracy"]["value"] for one in report["ingredients"]}
    assert alone[:5] == [scores[f"runs/{number}"] for number in range(5)]
    assert any("soup/mixture/val/accuracy" in log or "soup/mixture/val/accuracy bound" in log for log in told.logged)
    value = report["soup"]["scores"]["test"]["accuracy"]["value"]
    assert told.last["soup/soup/test/accuracy"] == pytest.approx(value)
    assert told.last["soup/soup/members"] == len(report["soup"]["members"])
    assert sum(log.get("soup/evaluated/examples", 0) for log in told.logged) == report["cost"]["examples"]
    assert [row["path"] for row in told.tables["soup/members"]] == report["soup"]["members"]
    assert [row["candidate"] for row in told.tables["soup/steps"]] == [step["candidate"] for step in report["steps"]]
    assert {row["path"]: row["val accuracy"] for row in told.tables["soup/ingredients"]} == scores
    assert {"model.safetensors", "soup.json", "report.json", "report.html", "path.svg"} <= told.files


@pytest.mark.filterwarnings("default")
def test_a_run_that_fails(tracker: str, family: Path, soup: Soup) -> None:
    """A run that ends with an error is one that failed there; the error is the command's own."""
    mine = ["--set", "val.mine={python: 'mine.py:score'}", "--set", "metric=accuracy"]
    Path("mine.py").write_text("def score(model, device):\n    raise RuntimeError('no data')\n")
    ran = soup("rank", "--ckpts", "runs/*/", "--val", "val", "mine", "--report-to", tracker, *mine)
    assert ran.code == 2 and "no data" in ran.stderr
    told = READERS[tracker](family)
    assert told.failed and len([log for log in told.logged if "soup/ingredient/val/accuracy" in log]) == 5


@pytest.mark.filterwarnings("default")
def test_the_users_own_run(tracker: str, family: Path) -> None:
    """A run that is active in a notebook is reported to and goes on; a soup is told when it is saved."""
    library: Any = sys.modules.get(tracker) or pytest.importorskip(tracker)
    if tracker == "mlflow":
        library.set_experiment("soup")
        library.start_run()
        library.log_metric("mine", 1.0, step=7)
    else:
        library.init(project="soup", name="mine")
        library.log({"mine": 1.0}, step=7)
    made = soupcli.greedy("runs/*/", val=["val", "test"], report_to=tracker)
    made.save("soup/")
    if tracker == "mlflow":
        library.log_metric("mine", 2.0, step=8)
        library.end_run()
    else:
        library.log({"mine": 2.0})
        library.finish()
    told = READERS[tracker](family)
    assert [log["mine"] for log in told.logged if "mine" in log] == [1.0, 2.0]
    assert told.last["soup/soup/test/accuracy"] == pytest.approx(made.scores["test"])
    assert "model.safetensors" in told.files


def test_refused(family: Path, soup: Soup) -> None:
    """An unknown tracker is named with its nearest, one that is missing with its extra, before anything is read."""
    ran = soup("rank", "--ckpts", "nowhere", "--val", "val", "--report-to", "wandv")
    assert ran.code == 2 and "--report-to wandv: not known, did you mean 'wandb'?" in ran.stderr
    with pytest.raises(UsageError, match="wandv"):
        soupcli.uniform("runs/*/", report_to="wandv")


def test_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tracker that is not installed is an extra that is missing."""
    for name in TRACKERS:
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(MissingExtra) as raised:
            tracker_named(name)
        assert f"model-soup[{name}]" in str(raised.value.hint)
