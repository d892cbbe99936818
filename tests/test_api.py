"""The functions of soupcli: each gives what its command gives, prints nothing, and writes where it is told to alone."""

from __future__ import annotations

import gc
import html
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import soupcli
from soupcli.errors import NetworkError, SoupError, UsageError, ValidationError
from soupcli.run.made import MadeSoup, Measurement
from tests.conftest import Ran, build_net

Soup = Callable[..., Ran]
MEASURED = ("seconds", "host", "created", "examples", "decoded", "cached")  # what a second run has otherwise


def without_measured(value: Any) -> Any:
    """A report, without times and what was found in the cache."""
    if isinstance(value, dict):
        return {key: without_measured(one) for key, one in value.items() if key not in MEASURED}
    return [without_measured(one) for one in value] if isinstance(value, list) else value


def accuracy(folder: Path) -> Callable[[nn.Module], float]:
    """The accuracy of the family's network on its set `val`, by hand."""
    held = load_file(folder / "data/val.safetensors")
    return lambda model: float((model(held["inputs"]).argmax(dim=1) == held["labels"]).double().mean())


SOUPS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "uniform": ([], {}),
    "greedy": (["--val", "val", "test", "--min-delta", "0.001"], {"val": ["val", "test"], "min_delta": 0.001}),
    "learned": (["--val", "val", "--set", "learned.steps=3"], {"val": "val", "set_": "learned.steps=3"}),
    "mix": (
        ["--weights", "0.5,0.25,0.25,0,0", "--weights-for", "0.*", "0.2,0.2,0.2,0.2,0.2"],
        {"weights": [0.5, 0.25, 0.25, 0, 0], "weights_for": {"0.*": [0.2] * 5}},
    ),
}


def test_warns_as_the_command_does(tmp_path: Path) -> None:
    """Of heads whose rows lie in another order, which are told when the soup is made."""
    rows = torch.randn(3, 8)
    for name, head in (("a", rows), ("b", rows.roll(1, 0))):
        save_file({"fc.weight": head.contiguous()}, tmp_path / f"{name}.safetensors")
    made = soupcli.uniform([tmp_path / "a.safetensors", tmp_path / "b.safetensors"])
    assert ["rows of 'fc.weight' are like those of" in one for one in made.report.warnings] == [True]


@pytest.mark.parametrize("name", SOUPS)
def test_a_soup_is_its_commands(name: str, family: Path, soup: Soup, capfd: pytest.CaptureFixture[str]) -> None:
    """The saved folder has the command's files, byte for byte, but for times; nothing is written or said before."""
    words, options = SOUPS[name]
    paths = [f"runs/{number}" for number in range(5)]
    capfd.readouterr()
    made: MadeSoup = getattr(soupcli, name)(paths, **options)
    assert made.members and len(made.members) == len(made.weights) and not Path("soup").exists()
    assert made.save("soup/") == Path("soup")
    assert capfd.readouterr() == ("", "")
    Path("soup").rename("made")
    assert soup(name, "--ckpts", *paths, *words, "--out", "soup/").code == 0
    files = {file.relative_to("soup") for file in Path("soup").rglob("*") if file.is_file()}
    assert files == {file.relative_to("made") for file in Path("made").rglob("*") if file.is_file()}
    for file in files - {Path("soup.json")}:
        assert (Path("made") / file).read_bytes() == (Path("soup") / file).read_bytes(), file
    report = json.loads(Path("soup/soup.json").read_text("utf-8"))
    assert without_measured(json.loads(made.report.to_json())) == without_measured(report)
    assert made.report.to_json() == Path("made/soup.json").read_text("utf-8")
    assert list(made.members) == report["soup"]["members"] and list(made.weights) == report["soup"]["weights"]


@pytest.mark.parametrize(
    ("name", "command", "words", "options"),
    [
        ("rank", "rank", ["--val", "val", "test"], {"val": ["val", "test"]}),
        ("evaluate", "eval", ["--val", "val"], {"val": "val"}),
        ("inspect", "inspect", ["--val", "val"], {"val": "val"}),
    ],
)
def test_a_measurement_is_its_commands(
    name: str, command: str, words: list[str], options: dict[str, Any], family: Path, soup: Soup
) -> None:
    """The report is the command's, but for times."""
    found: Measurement = getattr(soupcli, name)("runs/*/", **options)
    shown = json.loads(soup(command, "--ckpts", "runs/*/", *words, "--json").stdout)
    assert without_measured(json.loads(found.report.to_json())) == without_measured(shown)
    assert list(found.scores) == [one["path"] for one in shown["ingredients"]]


def test_verify(family: Path, soup: Soup) -> None:
    """The checks are the command's; a soup that is not written cannot be verified, a changed one is not verified."""
    made = soupcli.uniform("runs/*/")
    with pytest.raises(UsageError, match="not written yet"):
        soupcli.verify(made)
    made.save()
    checks = json.loads(soup("verify", "soup", "--rebuild", "--json").stdout)["checks"]
    found = soupcli.verify(made, rebuild=True)
    assert found.verified and [one._asdict() for one in found.checks] == checks
    assert found.report == made.report
    Path("soup/README.md").write_text("mine")
    assert not soupcli.verify("soup/").verified


def test_import_takes_no_torch() -> None:
    """`import soupcli` imports none of the libraries that a function needs, and names the functions."""
    code = "import soupcli, sys; print([m for m in ('torch', 'rich', 'typer', 'pydantic') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
    assert {"find", "greedy", "verify"} <= set(dir(soupcli))
    with pytest.raises(AttributeError, match="gredy"):
        soupcli.gredy  # noqa: B018  # type: ignore[attr-defined]


def test_weights_in_memory(family: Path) -> None:
    """`state_dict` and `load_into` give the tensors of the file, and leave no folder behind."""
    made = soupcli.uniform("runs/*/")
    state, net = made.state_dict(), build_net().train()
    net[0].eval()
    made.load_into(net)
    assert net.training and not net[0].training
    with pytest.raises(NetworkError, match="on the meta device"):
        made.load_into(build_net().to("meta"))
    assert not Path("soup").exists()
    made.save("mean")
    written = load_file("mean/model.safetensors")
    assert {name: tensor.tolist() for name, tensor in state.items()} == {n: t.tolist() for n, t in written.items()}
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in written.items())


def test_torchs_own_words(family: Path) -> None:
    """A device and a dtype may be torch's objects."""
    made = soupcli.uniform("runs/*/", dtype=torch.bfloat16, device=torch.device("cpu"))
    assert {tensor.dtype for tensor in made.state_dict().values()} == {torch.bfloat16}


def test_out_writes_at_once(family: Path) -> None:
    """With out= the folder is written as by the command, and an old one needs force."""
    made = soupcli.uniform("runs/*/", out="mean/")
    assert made.path == Path("mean") and Path("mean/soup.json").is_file()
    with pytest.raises(SoupError, match="mean"):
        soupcli.uniform("runs/*/", out="mean/")
    assert soupcli.uniform("runs/*/", out="mean/", force=True).path == Path("mean")


def test_own_function_of_the_network(family: Path) -> None:
    """A function of the live network selects the same soup as the set that it reproduces."""
    by_set = soupcli.greedy("runs/*/", val="val")
    networks: set[int] = set()

    def score(model: nn.Module) -> float:
        networks.add(id(model))
        return accuracy(family)(model)

    made = soupcli.greedy(soupcli.find("runs/*/"), evaluate=score, model=build_net)
    assert made.members == by_set.members and made.score == pytest.approx(by_set.score)
    assert len(networks) == 1
    assert [step.accepted for step in made.steps] == [step.accepted for step in by_set.steps]


def test_a_function_that_yields(family: Path) -> None:
    """Booleans of examples give what the set gives: decisions, early stop, errors and intervals; kept by a key."""
    held = load_file(family / "data/val.safetensors")
    seen: list[int] = []

    def right(model: nn.Module) -> Iterator[Tensor]:
        for inputs, labels in zip(held["inputs"].split(8), held["labels"].split(8), strict=True):
            seen.append(len(labels))
            yield model(inputs).argmax(dim=1) == labels

    by_set = soupcli.greedy("runs/*/", val="val")
    made = soupcli.greedy("runs/*/", evaluate=right, model=build_net, score_key="right-1")
    assert (made.members, made.score) == (by_set.members, by_set.score)
    assert [step.accepted for step in made.steps] == [step.accepted for step in by_set.steps]
    assert any(step.bound is not None for step in made.steps) and sum(seen) < 9 * len(held["labels"])
    ours, theirs = (soup.report.comparisons[0] for soup in (made, by_set))
    assert (ours.low, ours.high, ours.p, ours.n) == (theirs.low, theirs.high, theirs.p, theirs.n)
    seen.clear()
    again = soupcli.greedy("runs/*/", evaluate=right, model=build_net, score_key="right-1")
    assert (again.members, seen) == (made.members, [])
    whole = soupcli.greedy("runs/*/", evaluate=right, model=build_net, early_stop=False)
    assert whole.members == made.members and all(step.bound is None for step in whole.steps)


def test_own_function_of_tensors(family: Path) -> None:
    """Without a network the function is given names and tensors, one after the other."""

    def size(pairs: Iterator[tuple[str, Tensor]]) -> dict[str, float]:
        return {"size": sum(float(tensor.double().square().sum()) for _, tensor in pairs)}

    Path("soup.yaml").unlink()
    by_hand = {
        path: size(iter(load_file(f"{path}/model.safetensors").items()))["size"]
        for path in map(str, Path().glob("runs/*"))
    }
    found = soupcli.rank("runs/*/", evaluate=size, metric="size", higher_is_better=False)
    assert {path: of["evaluate"]["size"] for path, of in found.scores.items()} == by_hand
    assert found.best == min(by_hand, key=lambda path: by_hand[path])
    made = soupcli.mix(["runs/0", "runs/1"], weights="1,0", evaluate=size, metric="size", higher_is_better=False)
    assert made.score == by_hand["runs/0"]


def test_scores_of_own_functions_are_kept_by_their_key(family: Path) -> None:
    """With score_key= a function is not called again for weights that it has seen; without it always."""
    calls: list[int] = []

    def score(model: nn.Module) -> float:
        calls.append(1)
        return accuracy(family)(model)

    for key, expected in ((None, 10), ("mine-1", 5), ("mine-2", 5)):
        calls.clear()
        for _ in range(2):
            soupcli.rank("runs/*/", evaluate=score, model=build_net, score_key=key)
        assert len(calls) == expected


def test_key_of_bare_state_dicts(family: Path) -> None:
    """Beside evaluate= `key` is the word for kept scores, unless the checkpoints have state dicts to choose from."""
    calls: list[int] = []

    def score(model: nn.Module) -> float:
        calls.append(1)
        return accuracy(family)(model)

    for runs in ("runs/*/", soupcli.find("runs/*/")):
        soupcli.rank(runs, evaluate=score, model=build_net, key="mine")
    assert len(calls) == 5
    for number in range(2):
        torch.save({"state_dict": load_file(f"runs/{number}/model.safetensors"), "epoch": 1}, f"{number}.pt")
    for _ in range(2):
        soupcli.rank(["0.pt", "1.pt"], evaluate=score, model=build_net, key="state_dict")
    assert len(calls) == 9
    with pytest.raises(UsageError, match=r"key='mine': .* state_dict is opened") as raised:
        soupcli.rank(["0.pt", "1.pt"], evaluate=score, model=build_net, key="mine")
    assert "score_key=" in str(raised.value.hint)


def test_errors_of_own_functions(family: Path) -> None:
    """An error names the user's own line; a metric whose direction nobody knows is asked for."""

    def broken(_: nn.Module) -> float:
        raise RuntimeError("no data")

    with pytest.raises(ValidationError, match=r"test_api\.py:\d+: RuntimeError: no data"):
        soupcli.rank("runs/*/", evaluate=broken, model=build_net)
    with pytest.raises(SoupError, match="zeal"):
        soupcli.rank("runs/*/", evaluate=accuracy(family), model=build_net, metric="zeal")
    assert soupcli.rank("runs/*/", evaluate=accuracy(family), model=build_net, metric="mae").report.lower_is_better


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vall": "val"}, "greedy: no option 'vall', did you mean 'val'?"),
        ({"val": "val", "quiet": True}, "of the command line"),
        ({"val": "val", "jobs": 0}, "at least 1"),
        ({"val": "val", "last": "many"}, "last=: expected a whole number, got 'many'"),
        ({"val": "val", "force": 7}, "force=: expected true or false, got 7"),
        ({"val": object()}, "neither a text nor"),
        ({"val": "nosuch"}, "--val nosuch"),
        ({"evaluate": 3}, "not a function"),
        ({"val": "val", "higher_is_better": True}, "go with evaluate="),
        ({"ckpts": "runs/0", "val": "val"}, "given twice"),
        ({"val": "val", "out": 3}, "out=: expected a path, got 3"),
    ],
)
def test_what_is_not_meant_is_refused(family: Path, options: dict[str, Any], message: str) -> None:
    """A keyword of another name, kind or size is a UsageError."""
    with pytest.raises(UsageError) as raised:
        soupcli.greedy("runs/*/", **options)
    assert message in str(raised.value)


def test_no_checkpoints_are_not_those_of_the_recipe(family: Path) -> None:
    """An empty list is an error, whatever the recipe names; what is no checkpoint is one too."""
    for runs, message in (([], "holds no checkpoints"), ([3], "an int is neither a path nor a checkpoint")):
        with pytest.raises(UsageError, match=message):
            soupcli.uniform(runs)  # type: ignore[arg-type]


def test_the_state_dict_that_was_chosen(family: Path) -> None:
    """Checkpoints that were found with key= are not silently opened by another."""
    for number in range(2):
        state = load_file(f"runs/{number}/model.safetensors")
        torch.save({"state_dict": state, "other": {k: v + 1 for k, v in state.items()}}, f"{number}.pt")
    runs = soupcli.find("0.pt", "1.pt", key="other")
    with pytest.raises(UsageError, match="other"):
        soupcli.uniform(runs)
    assert soupcli.uniform(runs, key="other").members == ("0.pt", "1.pt")


def test_lists_of_words(family: Path) -> None:
    """`find` takes words and lists of them; no word at all is an error, and so is a file that has changed since."""
    runs = soupcli.find(["runs/0", Path("runs/1")], "runs/2")
    assert [str(one.path) for one in runs] == ["runs/0", "runs/1", "runs/2"]
    with pytest.raises(UsageError, match="no paths"):
        soupcli.find()
    save_file({name: tensor + 1 for name, tensor in load_file("runs/0/model.safetensors").items()}, "new")
    Path("new").rename("runs/0/model.safetensors")
    with pytest.raises(UsageError, match="has changed since it was opened"):
        soupcli.uniform(runs)


def test_what_own_functions_return(family: Path) -> None:
    """What is no score, or a network where a function is meant, is refused by the name of the keyword."""
    with pytest.raises(ValidationError, match=r"^evaluate=: returned a NoneType"):
        soupcli.rank("runs/*/", evaluate=lambda _: None, model=build_net)
    with pytest.raises(ValidationError, match=r"^evaluate=: returned no 'score'"):
        soupcli.rank("runs/*/", evaluate=lambda _: {"acc": 1.0}, model=build_net)
    with pytest.raises(UsageError, match="is a network, not a function"):
        soupcli.rank("runs/*/", evaluate=accuracy(family), model=build_net())


def test_weights_that_a_function_changes(family: Path) -> None:
    """Scores of changed weights are said to be such; another precision, or a mode, is no change."""

    def halved(model: nn.Module) -> float:
        with torch.no_grad():
            model[0].weight.data.mul_(0.5)  # type: ignore[index]
        return accuracy(family)(model)

    def doubled(model: nn.Module) -> float:
        held = load_file(family / "data/val.safetensors")
        model.train().half().double()
        return float((model(held["inputs"].double()).argmax(dim=1) == held["labels"]).double().mean())

    found = soupcli.rank("runs/*/", evaluate=halved, model=build_net)
    assert found.report.warnings == [
        "evaluate=: changes the weights ('0.weight' for one): its scores are those of a changed network, "
        "the soup holds the weights as they were"
    ]
    assert soupcli.rank("runs/*/", evaluate=doubled, model=build_net).report.warnings == []


def test_what_is_no_network(family: Path) -> None:
    """What builds no network, takes no soup and is no checkpoint is refused by its kind, without its content."""
    with pytest.raises(NetworkError, match=r"^model=: returned an int, a network is"):
        soupcli.rank("runs/*/", evaluate=accuracy(family), model=lambda: 3)  # type: ignore[arg-type, return-value]
    made = soupcli.uniform("runs/*/")
    with pytest.raises(UsageError, match="load_into: a function is no network"):
        made.load_into(build_net)  # type: ignore[arg-type]
    with pytest.raises(NetworkError, match=r"^the soup/model\.safetensors: the network Linear fits 2 parts of it"):
        made.load_into(nn.Linear(2, 2))
    for runs, name in ((build_net(), "a Sequential"), ([build_net().state_dict()], "an OrderedDict")):
        with pytest.raises(UsageError, match=f"^{name} is neither a path nor a checkpoint") as raised_here:
            soupcli.uniform(runs)  # type: ignore[arg-type]
        assert "save_file" in str(raised_here.value.hint)


def test_soups_among_runs(family: Path) -> None:
    """A soup that is saved stands for its folder; one that is not is an error that says so."""
    made = soupcli.uniform("runs/*/")
    with pytest.raises(UsageError, match="not written yet"):
        soupcli.evaluate([made, "runs/0"], val="val")
    made.save("mean/")
    assert set(soupcli.evaluate([made, "runs/0"], val="val").scores) == {"mean", "runs/0"}


def test_inference_mode(family: Path) -> None:
    """Within torch.inference_mode of a caller a fit works as outside of it."""
    with torch.inference_mode():
        made = soupcli.learned("runs/*/", val="val", set_="learned.steps=2")
    assert made.members


def test_soups_of_one_key_live_apart(family: Path) -> None:
    """A soup can be saved when another, of the same functions and key, is gone."""
    first, second = (
        soupcli.greedy("runs/*/", evaluate=accuracy(family), model=build_net, score_key="one") for _ in range(2)
    )
    del first
    gc.collect()
    second.save("second")
    assert soupcli.verify("second").verified


def test_notebook(family: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """In a notebook a soup is its table and figures; progress is said if it is asked for, never the result."""
    made = soupcli.greedy("runs/*/", val="val")
    page = made._repr_html_()
    assert "<table" in page and "<svg" in page and "runs/" in page
    assert made.report.warnings and f"Warning: {made.report.warnings[0]}" in html.unescape(page)
    ranking = soupcli.rank("runs/*/", val="val")
    assert "<table" in ranking._repr_html_() and repr(ranking) == f"<rank of 5, best {ranking.best}>"
    assert capfd.readouterr() == ("", "")
    soupcli.rank("runs/*/", val="val", fresh=True, progress=True)
    said = capfd.readouterr()
    assert said.out == "" and "runs/0" in said.err


def test_open_checkpoint(family: Path) -> None:
    """Headers are read, no tensor."""
    one = soupcli.open_checkpoint("runs/0")
    assert one.path == Path("runs/0") and set(one.tensors) == {"0.weight", "0.bias", "2.weight", "2.bias"}


def test_threads_of_a_notebook(family: Path) -> None:
    """A thread that runs already and writes to its own file, as a notebook's history does, is no part of a run."""
    stop, note = threading.Event(), Path("history.txt").absolute()
    with note.open("w") as opened:
        opened.write("0")

    def history() -> None:
        while not stop.wait(0.002):
            note.read_text()
            note.write_text(f"{time.monotonic_ns()}")

    thread = threading.Thread(target=history)
    thread.start()
    try:
        Path("mine.py").write_text("def score(model, device):\n    return {'accuracy': 0.5}\n")
        options: dict[str, Any] = {"val": ["val", "mine"], "set_": "val.mine={python: 'mine.py:score'}"}
        assert soupcli.rank("runs/*/", fresh=True, **options).best is not None
    finally:
        stop.set()
        thread.join()


def test_a_thread_that_waited(family: Path) -> None:
    """What code reads counts in a thread that was there when another one began a run."""
    Path("mine.py").write_text(
        "from pathlib import Path\n"
        "def score(model, device):\n    return {'accuracy': float(Path(''.join(('no', 'te'))).read_text())}\n"
    )
    note = Path("note")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(time.monotonic).result()
        note.write_text("0.25")
        options: dict[str, Any] = {"val": "mine", "set_": "val.mine={python: 'mine.py:score'}"}
        assert soupcli.rank("runs/*/", val="val").best is not None
        scores = []
        for text in ("0.25", "0.75"):
            note.write_text(text)
            found = pool.submit(soupcli.rank, "runs/*/", **options).result()
            scores.append(found.scores["runs/0"]["mine"]["accuracy"])
    assert scores == [0.25, 0.75]


def test_another_working_folder(family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In another working folder relative paths are refused until it is changed back; absolute ones work."""
    made = soupcli.uniform("runs/*/")
    absolute = soupcli.uniform([family / "runs" / str(number) for number in range(5)])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    for use in (made.save, made.state_dict, lambda: made.report):
        with pytest.raises(UsageError, match=rf"runs/0: begins at {family}, the working folder is now {elsewhere}"):
            use()
    absolute.load_into(build_net())
    assert absolute.save("there") == Path("there") and (elsewhere / "there/model.safetensors").is_file()
    monkeypatch.chdir(family)
    made.save("here")
    assert Path("here/model.safetensors").read_bytes() == (elsewhere / "there/model.safetensors").read_bytes()
