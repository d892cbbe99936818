"""Commands at once, tried again and ended: the decisions, the members and the bytes are those of one at a time."""

from __future__ import annotations

import json
import os
import shlex
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from soupcli.evaluation.outside import measure
from tests.conftest import Ran

Soup = Callable[..., Ran]

EVAL = """
import json, struct, sys

raw = open(sys.argv[1], "rb").read()
base = 8 + struct.unpack("<Q", raw[:8])[0]
begin, end = json.loads(raw[8:base])["2.bias"]["data_offsets"]
first, *_ = struct.unpack(f"<{(end - begin) // 4}f", raw[base + begin : base + end])
with open("calls", "a") as calls:
    calls.write(".")
score = {"accuracy": 1 / (1 + abs(first - 0.02)), "n": 200}
print(json.dumps({"val": score, "test": {**score, "accuracy": 1 - score["accuracy"]}} if sys.argv[2:] else score))
"""
PYTHON = shlex.quote(sys.executable)


@pytest.fixture
def commanded(family: Path) -> Path:
    """A family whose sets are evaluated by a command."""
    (family / "eval.py").write_text(EVAL)
    return family


def recipe(family: Path, words: str = "{weights}", **keys: Any) -> None:
    """The recipe with one command for two sets."""
    spec = {"command": f"{PYTHON} eval.py {words}", **keys}
    (family / "soup.yaml").write_text(json.dumps({"val": {"val": spec, "test": spec}, "metric": "accuracy"}))


def calls(family: Path) -> int:
    """How often the command ran since it was asked last."""
    file = family / "calls"
    count = len(file.read_text()) if file.exists() else 0
    file.unlink(missing_ok=True)
    return count


def decisions(report: dict[str, Any]) -> list[Any]:
    """What greedy decided, and the soup's hash."""
    steps = [(step["candidate"], step["score"], step["accepted"]) for step in report["steps"]]
    return [steps, report["soup"]["members"], report["soup"]["hash"]]


def test_speculation_changes_nothing(commanded: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any number of jobs and candidates ahead gives the very same soup; the next run evaluates nothing."""
    recipe(commanded)
    found = []
    for jobs, ahead in ((1, 0), (3, 2), (2, 5)):
        monkeypatch.setenv("SOUP_CACHE", str(commanded / f"cache-{jobs}"))
        words = ("--ckpts", "runs/*/", "--val", "val", "--jobs", str(jobs), "--speculate", str(ahead), "--json")
        ran = soup("greedy", *words, "--out", f"soup-{jobs}", "--no-early-stop")
        assert ran.code == 0, ran.stderr
        found.append(decisions(json.loads(ran.stdout)))
        once = calls(commanded)
        assert once >= 9
        again = soup("greedy", *words, "--out", f"again-{jobs}")
        assert decisions(json.loads(again.stdout)) == found[-1]
        assert calls(commanded) == 0
    assert found[0] == found[1] == found[2]


HASHED = """
import hashlib, json, os, signal, sys

path, seed, digits, ends_at, how = sys.argv[1:]
with open("calls", "a") as calls:
    calls.write(".")
if os.path.getsize("calls") == int(ends_at):
    if how != "fails":
        os.kill(os.getppid(), getattr(signal, how))
    sys.exit("no memory left")
digest = hashlib.sha256(seed.encode() + open(path, "rb").read()).hexdigest()
print(json.dumps({"accuracy": round(int(digest[:8], 16) / 16**8, int(digits)), "n": 200}))
"""


@pytest.mark.long
@pytest.mark.parametrize("how", ["fails", "SIGINT", "SIGKILL"])
@settings(
    max_examples=3,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    seed=st.integers(0, 10**6),
    digits=st.integers(1, 6),  # with one digit most candidates tie
    jobs=st.integers(1, 4),
    ahead=st.integers(0, 5),
    ends_at=st.integers(1, 9),
)
def test_property_of_any_scores(
    commanded: Path, soup: Soup, seed: int, digits: int, jobs: int, ahead: int, ends_at: int, how: str
) -> None:
    """Whatever the scores, their ties, jobs, candidates ahead, where and how a run ends: decisions and bytes."""
    (commanded / "eval.py").write_text(HASHED)
    words = ("greedy", "--ckpts", "runs/*/", "--val", "val", "--no-early-stop", "--json", "--force")
    found = []
    for flags, end in (((), 0), (("--jobs", str(jobs), "--speculate", str(ahead)), ends_at)):
        recipe(commanded, f"{{weights}} {seed} {digits} {end} {how}")
        (commanded / "calls").unlink(missing_ok=True)
        if end and how == "SIGKILL":
            in_a_fork(soup, *words, *flags)
        ran = soup(*words, *flags)
        if ran.code:
            assert end and ("no memory left" in ran.stderr or ran.code == 130), ran.stderr
            ran = soup(*words, *flags)
        assert ran.code == 0, ran.stderr
        found.append(decisions(json.loads(ran.stdout)))
    assert found[0] == found[1]


def in_a_fork(soup: Soup, *words: str) -> None:
    """Runs `soup WORDS...` in a copy of this process, which its own command may kill."""
    with warnings.catch_warnings():  # of threads: the copy starts its own
        warnings.simplefilter("ignore")
        child = os.fork()
    if not child:
        soup(*words)
        os._exit(0)
    os.waitpid(child, 0)


def test_nothing_to_speculate_with(commanded: Path, soup: Soup) -> None:
    """One job cannot evaluate anything meanwhile, which is said."""
    recipe(commanded)
    words = ("greedy", "--ckpts", "runs/*/", "--val", "val", "--speculate", "3", "--dry-run")
    assert "--speculate 3: one job evaluates nothing meanwhile" in soup(*words).stderr
    assert "meanwhile" not in soup(*words, "--jobs", "2").stderr


def test_several_results_of_one_command(commanded: Path, soup: Soup) -> None:
    """A command that prints the scores of several sets runs once for all of them."""
    recipe(commanded, "{weights} both")
    ran = soup("rank", "--ckpts", "runs/*/", "--val", "val", "test", "--jobs", "2", "--json")
    assert ran.code == 0, ran.stderr
    assert calls(commanded) == 5
    for row in json.loads(ran.stdout)["ingredients"]:
        one, other = (row["scores"][name]["accuracy"]["value"] for name in ("val", "test"))
        assert other == 1 - one


def test_a_command_that_fails(commanded: Path, soup: Soup) -> None:
    """The error has its last lines and a command that can be run by hand; retries may help, a time limit ends it."""
    (commanded / "eval.py").write_text(
        "import sys, os\nfrom pathlib import Path\nprint('first', file=sys.stderr)\n"
        "if Path('tried').exists():\n    print('{\"accuracy\": 1}')\n    sys.exit()\nPath('tried').touch()\n"
        "raise ValueError('no labels')\n"
    )
    recipe(commanded)
    words = ("--ckpts", "runs/*/", "--val", "val")
    ran = soup("greedy", *words)
    assert ran.code == 2
    assert "exited with 1" in ran.stderr and "ValueError: no labels" in ran.stderr
    kept = Path(ran.stderr.split("the candidate stays in ")[1].split()[0])
    assert (kept / "model.safetensors").is_file() and f"{kept}/model.safetensors" in ran.stderr
    earlier = kept.rename(kept.with_name("1-0"))
    Path("tried").unlink()
    assert f"the candidate stays in {kept}" in soup("greedy", *words).stderr
    assert kept.is_dir() and not earlier.exists()  # one of an earlier run goes
    assert soup("cache", "candidates", "--clear").code == 0
    assert not kept.exists()
    Path("tried").unlink()
    recipe(commanded, retries=1)
    assert soup("rank", *words).code == 0
    (commanded / "eval.py").write_text("import time\ntime.sleep(60)\n")
    recipe(commanded, timeout=0.2)
    assert "took more than 0.2 s" in soup("rank", *words).stderr


def test_nothing_is_known_of_a_command(commanded: Path, soup: Soup) -> None:
    """Its scores are not kept, which is said once; a version keeps them."""
    spec: dict[str, Any] = {"command": f'{PYTHON} -c "print(\'{{\\"accuracy\\": 1}}\')" {{checkpoint}}'}
    words = ("rank", "--ckpts", "runs/*/", "--val", "val")
    for version, said in ((None, 1), (3, 0)):
        keys = {} if version is None else {"version": version}
        (commanded / "soup.yaml").write_text(json.dumps({"val": {"val": {**spec, **keys}}}))
        ran = soup(*words)
        assert ran.code == 0, ran.stderr
        assert ran.stderr.count("its scores are not kept") == said


def test_a_mistake_is_made_once(commanded: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many jobs there are, a command that fails at once runs for one checkpoint and leaves one folder."""
    monkeypatch.setattr(measure, "HEAD_START", 60)  # Python may take a while to start here
    (commanded / "eval.py").write_text("open('calls', 'a').write('.')\nraise SystemExit('no labels')\n")
    recipe(commanded)
    ran = soup("greedy", "--ckpts", "runs/*/", "--val", "val", "--jobs", "4", "--speculate", "3")
    assert ran.code == 2 and ran.stderr.count("the candidate stays in") == 1
    assert calls(commanded) == 1
