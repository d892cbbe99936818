"""`soup inspect`: every known cause of failing soups, made for real, gives its verdict alone; healthy ones get none."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from soupcli.checkpoints import hashes
from soupcli.diagnosis.causes import CAUSES
from soupcli.files.reading import FileVersion, sha256
from soupcli.run import inspection_to_report
from tests.conftest import Ran
from tests.diagnosis import test_culprits
from tests.helpers.broken_families import TRAIN, VAL, Task, fine_tuned, from_seed, save, trained, write
from tests.helpers.broken_families import copy as copied

Soup = Callable[..., Ran]
Inspect = Callable[..., dict[str, Any]]
WITH_VAL = ("--val", "val")
WITH_BASE = ("--base", "start")


@pytest.fixture(scope="session")
def start() -> nn.Sequential:
    """Where healthy families begin."""
    return from_seed(0)


@pytest.fixture(scope="session")
def healthy(start: nn.Sequential) -> list[nn.Sequential]:
    """Five runs of one sweep: learning rates over a factor of 2, seeds of their own."""
    return [fine_tuned(start, seed=seed, lr=(1e-3, 2e-3)[seed % 2]) for seed in range(1, 6)]


@pytest.fixture
def inspected(tmp_path: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> Inspect:
    """Writes a family and gives what `soup inspect WORDS --json` says of it."""

    def inspect(
        *words: str, nets: Sequence[nn.Module] = (), start: nn.Module | None = None, norm: bool = False
    ) -> dict[str, Any]:
        if nets:
            write(tmp_path / "family", nets, start=start, norm=norm)
        monkeypatch.chdir(tmp_path / "family")
        ran = soup("inspect", "--ckpts", "runs/*/", "--json", *words)
        assert ran.code == 0, ran.stderr
        inspection: dict[str, Any] = json.loads(ran.stdout)["inspection"]
        return inspection

    return inspect


def causes(inspection: dict[str, Any]) -> list[str]:
    """Names of what was found."""
    return [found["cause"] for found in inspection["verdicts"]]


def changed(run: str, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    """A checkpoint of the family written again."""
    save(change(load_file(f"{run}/model.safetensors")), Path(run))


@pytest.mark.parametrize("words", [(), WITH_BASE, WITH_VAL, (*WITH_VAL, *WITH_BASE)], ids=" ".join)
def test_healthy(inspected: Inspect, healthy: list[nn.Sequential], start: nn.Sequential, words: Sequence[str]) -> None:
    """A sweep from one start gets no verdict, and is told to be mixable."""
    found = inspected(*words, nets=healthy, start=start)
    assert (causes(found), found["mixable"], found["differences"]) == ([], True, [])
    assert found["geometry"]["groups"] == [[f"runs/{number}" for number in range(5)]]


def test_more_ingredients_than_pairs_are_listed_of(
    inspected: Inspect,
    healthy: list[nn.Sequential],
    start: nn.Sequential,
    soup: Soup,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The matrices of many are left out of the report, not what people see of them: each one's least and largest."""
    listed = inspected(*WITH_BASE, nets=healthy, start=start)["geometry"]
    text = ("inspect", "--ckpts", "runs/*/", *WITH_BASE)
    shown = soup(*text).stdout
    monkeypatch.setattr(inspection_to_report, "MOST_LISTED", 4)
    found = inspected(*WITH_BASE)["geometry"]
    assert found["distances"] == found["angles"] == found["offset_angles"] == []
    assert found["ranges"] == listed["ranges"]
    for matrix, name in (("distances", "distance"), ("angles", "angle"), ("offset_angles", "offset_angle")):
        others = [[value for k, value in enumerate(row) if k != place] for place, row in enumerate(listed[matrix])]
        assert [one[name] for one in found["ranges"]] == [[min(row), max(row)] for row in others]
    assert "angle at base" in shown and soup(*text).stdout == shown


def test_heads_that_began_at_zero(inspected: Inspect, start: nn.Sequential) -> None:
    """A head that each run learned from zeros is no layer made anew: all learned it on the same features."""
    nets = []
    for seed in range(1, 5):
        net = copied(start)
        nn.init.zeros_(net.get_parameter("4.weight"))
        nets.append(fine_tuned(net, seed=seed))
    assert causes(inspected(*WITH_VAL, nets=nets)) == []


@pytest.mark.parametrize("words", [(), WITH_VAL, WITH_BASE], ids=" ".join)
def test_no_common_start(inspected: Inspect, start: nn.Sequential, words: Sequence[str]) -> None:
    """Networks from other seeds are strangers, by their weights alone; the groups are told."""
    nets = [fine_tuned(start, seed=1), fine_tuned(start, seed=2), from_seed(5), from_seed(6)]
    found = inspected(*words, nets=nets, start=start)
    assert causes(found) == ["no common start"]
    assert found["geometry"]["groups"] == [["runs/0", "runs/1"], ["runs/2"], ["runs/3"]]
    if found["barriers"]:
        [barrier] = found["barriers"]
        assert all(barrier["height"][run] > 0.03 for run in ("runs/0", "runs/1", "runs/2", "runs/3"))


@pytest.mark.parametrize("words", [(), WITH_VAL], ids=" ".join)
def test_one_stranger(inspected: Inspect, healthy: list[nn.Sequential], words: Sequence[str]) -> None:
    """One network of another seed that is worse did not learn at too high a rate: its weights are as long."""
    [found] = inspected(*words, nets=[*healthy[:4], from_seed(5, steps=80)])["verdicts"]
    assert (found["cause"], found["accused"]) == ("no common start", ["runs/4"])


@pytest.mark.parametrize("words", [(), WITH_VAL, WITH_BASE], ids=" ".join)
def test_a_head_made_anew(inspected: Inspect, start: nn.Sequential, words: Sequence[str]) -> None:
    """A head that one run began with numbers of its own is told, with its layer."""
    other = copied(start)
    with torch.random.fork_rng():
        torch.manual_seed(9)
        other[4] = nn.Linear(*other.get_parameter("4.weight").shape[::-1])
    nets = [*(fine_tuned(start, seed=seed) for seed in (1, 2, 3)), fine_tuned(other, seed=4)]
    found = inspected(*words, nets=nets, start=start)
    assert causes(found) == ["a layer made anew"]
    assert "layer '4'" in found["verdicts"][0]["evidence"] and "runs/3" in found["verdicts"][0]["evidence"]


@pytest.mark.parametrize("words", [(), WITH_VAL, WITH_BASE, (*WITH_VAL, *WITH_BASE)], ids=" ".join)
def test_learning_rate(
    inspected: Inspect, healthy: list[nn.Sequential], start: nn.Sequential, words: Sequence[str]
) -> None:
    """A run at a ruinous learning rate stands out by how far it went; with scores, by what it does to the soup."""
    found = inspected(*words, nets=[*healthy, fine_tuned(start, seed=7, lr=1e-1)], start=start)
    assert causes(found) == ["learning rate too high"]
    [verdict] = found["verdicts"]
    assert verdict["evidence"].startswith("runs/5 is ") and verdict["accused"] == ["runs/5"]
    assert verdict["sure"] == ("likely" if "--val" in words else "possible")
    if "--val" in words:
        [barrier] = found["barriers"]
        without = {run: scores["accuracy"]["value"] for run, scores in barrier["without"].items()}
        assert without["runs/5"] > max(without[f"runs/{number}"] for number in range(5)) + 0.1


def test_a_high_rate_that_is_good(inspected: Inspect, healthy: list[nn.Sequential], start: nn.Sequential) -> None:
    """Ten times the learning rate is no fault if the soup does not suffer from it."""
    nets = [*healthy, fine_tuned(start, seed=7, lr=1.5e-2)]
    assert causes(inspected(*WITH_VAL, *WITH_BASE, nets=nets, start=start)) == []


@pytest.mark.parametrize("words", [(), WITH_VAL, WITH_BASE, (*WITH_VAL, *WITH_BASE)], ids=" ".join)
def test_half_a_sweep_is_no_outlier(inspected: Inspect, start: nn.Sequential, words: Sequence[str]) -> None:
    """Three runs that hardly moved and three that went far make one healthy family."""
    near = [fine_tuned(start, seed=seed, lr=1e-5, steps=10) for seed in range(1, 4)]
    far = [fine_tuned(start, seed=seed, lr=2e-3) for seed in range(4, 7)]
    assert causes(inspected(*words, nets=[*near, *far], start=start)) == []


@pytest.mark.parametrize("words", [(), WITH_VAL], ids=" ".join)
def test_two_of_which_one_went_wild(
    inspected: Inspect, healthy: list[nn.Sequential], start: nn.Sequential, words: Sequence[str]
) -> None:
    """Of two runs the one whose weights have grown is to blame, which tells it from a stranger."""
    found = inspected(*words, nets=[healthy[0], fine_tuned(start, seed=7, lr=1e-1)])
    assert causes(found) == ["learning rate too high"] and found["verdicts"][0]["accused"] == ["runs/1"]


def test_few_examples_and_one_broken_run(
    inspected: Inspect, healthy: list[nn.Sequential], start: nn.Sequential
) -> None:
    """Twenty examples are enough to name a run whose weights went wild."""
    inspected(nets=[*healthy[:4], fine_tuned(start, seed=7, lr=3e-1)])
    few = {"inputs": VAL.inputs[:20].clone(), "labels": VAL.labels[:20].clone()}
    save_file(few, "data/few.safetensors")
    found = inspected("--val", "data/few.safetensors")
    assert causes(found)[0] == "learning rate too high"
    assert set(causes(found)[1:]) <= {"too few validation examples"}


def test_examples_that_do_not_show_a_broken_run(
    inspected: Inspect, healthy: list[nn.Sequential], start: nn.Sequential
) -> None:
    """What the weights say stands if the examples are too few to say whether the run is any worse."""
    nets, mean = [*healthy[:4], fine_tuned(start, seed=7, lr=1e-1)], copied(start)
    inspected(nets=nets)
    states = [net.state_dict() for net in nets]
    mean.load_state_dict({name: torch.stack([state[name] for state in states]).mean(dim=0) for name in states[0]})
    known = torch.stack([net(VAL.inputs).argmax(dim=1) == VAL.labels for net in (*nets, mean)])
    right = known.all(dim=0).nonzero().flatten()[:40]
    save_file({"inputs": VAL.inputs[right].clone(), "labels": VAL.labels[right].clone()}, "data/few.safetensors")
    found = inspected("--val", "data/few.safetensors")["verdicts"]
    assert (found[0]["cause"], found[0]["sure"], found[0]["accused"]) == (
        "learning rate too high",
        "possible",
        ["runs/4"],
    )


def test_half_of_the_labels_in_another_order(
    inspected: Inspect, healthy: list[nn.Sequential], start: nn.Sequential
) -> None:
    """Two of four runs with other labels are named for it, and for nothing else."""
    order = torch.tensor([1, 2, 3, 4, 0])
    data = Task(TRAIN.inputs, order[TRAIN.labels])
    odd = [trained(copied(start), steps=120, lr=2e-3, seed=seed, data=data) for seed in (7, 8)]
    found = inspected(*WITH_VAL, nets=[*healthy[:2], *odd])
    assert causes(found) == ["labels in another order"]
    assert sorted(found["verdicts"][0]["accused"]) == ["runs/2", "runs/3"]


def trained_on(start: nn.Sequential, data: Task) -> nn.Sequential:
    return trained(copied(start), steps=120, lr=2e-3, seed=7, data=data)


def test_labels_in_another_order(inspected: Inspect, healthy: list[nn.Sequential], start: nn.Sequential) -> None:
    """A run whose labels were numbered otherwise is named by what it predicts; no file says so."""
    order = torch.tensor([1, 2, 3, 4, 0])
    odd = trained_on(start, Task(TRAIN.inputs, order[TRAIN.labels]))
    for words in (WITH_VAL, (*WITH_VAL, *WITH_BASE)):
        found = inspected(*words, nets=[] if Path("runs").exists() else [*healthy, odd], start=start)
        assert causes(found) == ["labels in another order"]
        assert found["verdicts"][0]["accused"] == ["runs/5"]


def test_trained_on_other_inputs(inspected: Inspect, healthy: list[nn.Sequential], start: nn.Sequential) -> None:
    """A run whose features stood in another order knows nothing here, and its weights did not go wild."""
    odd = trained_on(start, Task(TRAIN.inputs.flip(1), TRAIN.labels))
    found = inspected(*WITH_VAL, nets=[*healthy, odd], start=start)
    assert causes(found) == ["trained on other inputs"]
    assert found["verdicts"][0]["accused"] == ["runs/5"]


def test_one_of_two_was_trained_on_other_inputs(
    inspected: Inspect, healthy: list[nn.Sequential], start: nn.Sequential
) -> None:
    """Of two runs the one that knows nothing here is named, as possible: no distance says which went astray."""
    [found] = inspected(*WITH_VAL, nets=[trained_on(start, Task(TRAIN.inputs.flip(1), TRAIN.labels)), healthy[0]])[
        "verdicts"
    ]
    assert (found["cause"], found["sure"], found["accused"]) == ("trained on other inputs", "possible", ["runs/0"])


@pytest.mark.parametrize("place", [4, 0])
@pytest.mark.parametrize("words", [(), WITH_VAL], ids=" ".join)
def test_neurons_in_another_order(
    inspected: Inspect, healthy: list[nn.Sequential], words: Sequence[str], place: int
) -> None:
    """The same function with its hidden neurons exchanged is told by rows that stand elsewhere."""
    odd, order = copied(healthy[0]), torch.randperm(64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for name, dim in (("0.weight", 0), ("0.bias", 0), ("2.weight", 1)):
            odd.get_parameter(name).copy_(healthy[0].get_parameter(name).index_select(dim, order))
    nets = list(healthy[1:])
    nets.insert(place, odd)
    found = inspected(*words, nets=nets)
    assert causes(found) == ["neurons in another order"]
    assert found["verdicts"][0]["accused"] == [f"runs/{place}"]


@pytest.mark.parametrize("words", [WITH_BASE, (*WITH_VAL, *WITH_BASE)], ids=" ".join)
def test_another_base(inspected: Inspect, healthy: list[nn.Sequential], words: Sequence[str]) -> None:
    """A base that the runs did not begin with is far from all of them, who are close to one another."""
    assert causes(inspected(*words, nets=healthy, start=from_seed(9))) == ["another base"]


def test_a_fine_tuned_base(inspected: Inspect, healthy: list[nn.Sequential]) -> None:
    """A base that is one more run of the sweep lies among the ingredients, and so do the lengths of its rows."""
    [found] = inspected(*WITH_VAL, *WITH_BASE, nets=[*healthy[:1], *healthy[2:]], start=healthy[1])["verdicts"]
    assert (found["cause"], found["sure"]) == ("another base", "possible")
    assert "as far from each ingredient as the nearest other one" in found["evidence"]


@pytest.mark.parametrize("one_more", [False, True])
def test_a_run_of_the_highest_rate_as_base(inspected: Inspect, start: nn.Sequential, one_more: bool) -> None:
    """Such a base lies outside the ingredients, as a start does: the run that went farthest is no farther from it."""
    nets = [fine_tuned(start, seed=seed, lr=(5e-4, 1e-3, 2e-3)[seed % 3]) for seed in range(6, 11)]
    base = fine_tuned(start, seed=11, lr=2e-3) if one_more else start
    found = inspected(*WITH_VAL, *WITH_BASE, nets=nets, start=base)["verdicts"]
    assert [(each["cause"], each["sure"]) for each in found] == [("another base", "possible")] * one_more
    assert not one_more or "as if the base were one more such run" in found[0]["evidence"]


def test_ranges_of_quantisation(inspected: Inspect, healthy: list[nn.Sequential]) -> None:
    """Observed ranges that differ are told."""
    inspected(nets=healthy)
    for number in range(5):

        def observed(state: dict[str, Tensor], number: int = number) -> dict[str, Tensor]:
            return state | {"0.fake_quant.scale": torch.full((1,), 1.0 + number)}

        changed(f"runs/{number}", observed)
    found = inspected()
    assert causes(found) == ["ranges of quantisation"]
    assert "0.fake_quant.scale" in found["verdicts"][0]["evidence"]


@pytest.mark.long
def test_two_pretrainings(inspected: Inspect) -> None:
    """Two groups whose starts were trained apart from the same random numbers: the mean collapses."""
    nets = []
    for seed in (1, 2):
        begun = trained(copied(from_seed(0, steps=1)), steps=1500, lr=2e-2, seed=seed)
        nets += [fine_tuned(begun, seed=number) for number in (1, 2)]
    found = inspected(*WITH_VAL, nets=nets)
    assert causes(found) == ["no common start"]
    assert found["verdicts"][0]["accused"] in (["runs/0", "runs/1"], ["runs/2", "runs/3"])


def test_one_dominates(inspected: Inspect) -> None:
    """Runs that hardly left the start, beside one that learned the task: that one is no worse, it stands alone."""
    start = from_seed(3, steps=15)
    nets = [fine_tuned(start, seed=seed, lr=1e-4, steps=10) for seed in range(1, 5)]
    found = inspected(*WITH_VAL, *WITH_BASE, nets=[*nets, fine_tuned(start, seed=7, lr=3e-3, steps=100)], start=start)
    assert causes(found) == ["one ingredient dominates"]
    assert found["verdicts"][0]["evidence"].startswith("runs/4 is ")


def test_batch_norm(inspected: Inspect) -> None:
    """Averaged running statistics that do not fit the averaged weights: estimated again, the mean is much better.

    It is still worse than the ingredients, which stand at 66 degrees or more: that is told too.
    """
    start = from_seed(0, norm=True)
    nets = [fine_tuned(start, seed=seed, norm=True, lr=4e-2, steps=150) for seed in range(1, 4)]
    found = inspected(*WITH_VAL, nets=nets, norm=True)
    assert causes(found) == ["batch-norm statistics", "too far apart"]
    [barrier] = found["barriers"]
    gain = barrier["settled_mean"]["accuracy"]["value"] - barrier["mean"]["accuracy"]["value"]
    assert gain > 0.03
    again = inspected(*WITH_VAL, "--set", "batch_norm=recalibrate")
    assert "batch-norm statistics" not in causes(again)


def test_too_far(inspected: Inspect, start: nn.Sequential) -> None:
    """Runs at a ruinous rate from one start: nothing of it is wrong alone, and their mean is worse than all of them."""
    nets = [fine_tuned(start, seed=seed, lr=6e-2, steps=60) for seed in range(1, 6)]
    assert causes(inspected(*WITH_VAL, *WITH_BASE, nets=nets, start=start)) == ["too far apart"]


@pytest.mark.parametrize(
    ("file", "one", "other", "evidence"),
    [
        ("preprocessor_config.json", {"image_mean": [0.5, 0.5]}, {"image_mean": [0.4, 0.5]}, "image_mean"),
        ("config.json", {"pretrained_cfg": {"crop_pct": 0.9}}, {"pretrained_cfg": {"crop_pct": 1}}, "crop_pct"),
        ("config.json", {"id2label": {"0": "a"}}, {"id2label": {"0": "b"}}, "id2label.0"),
    ],
)
def test_other_inputs(
    inspected: Inspect, healthy: list[nn.Sequential], tmp_path: Path, file: str, one: Any, other: Any, evidence: str
) -> None:
    """Preprocessing, or the order of the classes, that is another one beside a checkpoint."""
    write(tmp_path / "family", healthy)
    for number in range(5):
        note = {"transformers_version": f"5.{number}", "_name_or_path": f"runs/{number}"}
        text = json.dumps((other if number == 3 else one) | note)
        (tmp_path / f"family/runs/{number}/{file}").write_text(text)
    found = inspected(*WITH_VAL)
    assert causes(found) == ["different inputs"]
    assert evidence in found["verdicts"][0]["evidence"] and "runs/3" in found["verdicts"][0]["evidence"]
    assert len(found["settings"]) == 1  # and not what the library notes of itself


def test_other_computations(inspected: Inspect, healthy: list[nn.Sequential], tmp_path: Path) -> None:
    """Another activation by a checkpoint's config.json is a cause, and the checkpoint is accused."""
    write(tmp_path / "family", healthy)
    for number in range(5):
        act = "relu" if number == 3 else "gelu"
        (tmp_path / f"family/runs/{number}/config.json").write_text(json.dumps({"hidden_act": act}))
    [verdict] = inspected()["verdicts"]
    assert (verdict["cause"], verdict["accused"]) == ("different settings", ["runs/3"])


def test_other_settings_are_no_cause(inspected: Inspect, healthy: list[nn.Sequential], tmp_path: Path) -> None:
    """What changes neither inputs nor outputs is listed and not judged."""
    write(tmp_path / "family", healthy)
    for number in range(5):
        (tmp_path / f"family/runs/{number}/config.json").write_text(json.dumps({"dropout": 0.1 * number}))
    found = inspected()
    assert causes(found) == [] and list(found["settings"]) == ["config.json: dropout"]


def test_overflow(inspected: Inspect, healthy: list[nn.Sequential]) -> None:
    """A weight beyond float16 became infinite where it was saved so."""
    inspected(nets=healthy)
    for number in range(5):
        scale = 1e8 if number == 2 else 1.0

        def overflowed(state: dict[str, Tensor], scale: float = scale) -> dict[str, Tensor]:
            return {name: (tensor * scale).half() for name, tensor in state.items()}

        changed(f"runs/{number}", overflowed)
    found = inspected(*WITH_VAL)
    assert causes(found) == ["fp16 overflow"]
    assert not found["mixable"] and "65504" in found["verdicts"][0]["evidence"]
    assert set(found["not_finite"]) == {"runs/2"} and "0.weight" in found["not_finite"]["runs/2"]


def test_diverged(inspected: Inspect, start: nn.Sequential, healthy: list[nn.Sequential]) -> None:
    """Training that runs into NaNs is told by tensor; the others are evaluated all the same."""
    lost = copied(start)
    with torch.no_grad():
        lost.get_parameter("2.weight").mul_(float("inf"))
    found = inspected(*WITH_VAL, nets=[*healthy, fine_tuned(lost, seed=1, steps=2)])
    assert causes(found) == ["training diverged"]
    assert set(found["not_finite"]) == {"runs/5"}
    assert found["refused"].startswith("runs/5")


def test_the_same_twice(inspected: Inspect, healthy: list[nn.Sequential]) -> None:
    """Copies are found by content, in whatever file and of whatever precision they are."""
    inspected(nets=healthy)
    Path("runs/9").mkdir()
    state = load_file("runs/1/model.safetensors")
    for narrow, wide in (
        (torch.float32, torch.float32),
        (torch.float16, torch.float16),
        (torch.bfloat16, torch.float32),
        (torch.float64, torch.float64),
    ):
        torch.save({name: tensor.to(narrow).to(wide) for name, tensor in state.items()}, "runs/9/pytorch_model.bin")
        found = inspected()
        assert causes(found) == ["the same weights twice"] and found["duplicates"] == [["runs/1", "runs/9"]]


def test_other_networks(inspected: Inspect, healthy: list[nn.Sequential]) -> None:
    """Every name and shape that differs is listed, with the nearest name; nothing is refused."""
    inspected(nets=healthy)

    def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
        others = {f"body.{name}": tensor for name, tensor in state.items() if name != "2.weight"}
        return others | {"2.weight": torch.zeros(64, 32)}

    changed("runs/3", renamed)
    found = inspected(*WITH_VAL)
    assert causes(found) == ["different networks"] and not found["mixable"]
    of_3 = [(each["kind"], each["tensor"], each["found"]) for each in found["differences"] if each["path"] == "runs/3"]
    assert of_3 == [each for each in of_3 if each[0] in ("lacks", "has alone", "shape")] and len(of_3) == 11
    assert ("lacks", "4.weight", "body.4.weight") in of_3 and ("shape", "2.weight", "[64, 32]") in of_3


def test_other_classes(inspected: Inspect, healthy: list[nn.Sequential]) -> None:
    """Heads of other sizes are told apart from other networks, and --exclude makes a family of them."""
    inspected(nets=healthy)
    changed("runs/3", lambda state: state | {"4.weight": torch.zeros(7, 64), "4.bias": torch.zeros(7)})
    assert causes(inspected(*WITH_VAL)) == ["heads for different classes"]
    assert causes(inspected(*WITH_VAL, "--exclude", "4.*")) == []


def test_other_keys(inspected: Inspect, healthy: list[nn.Sequential]) -> None:
    """Averaged weights of one run beside trained ones of the others."""
    inspected(nets=healthy)
    for number in range(5):
        file = Path(f"runs/{number}/model.safetensors")
        state = load_file(file)
        file.unlink()
        torch.save({"state_dict_ema" if number == 2 else "state_dict": state}, file.with_name("last.pth"))
    found = inspected()
    assert causes(found) == ["weights of different kinds"] and not found["mixable"]
    assert [each["path"] for each in found["differences"]] == ["runs/2"]


def test_too_few_examples(inspected: Inspect, healthy: list[nn.Sequential]) -> None:
    """Twenty examples do not tell five runs apart; a thousand do well enough."""
    inspected(nets=healthy)
    few = {"inputs": VAL.inputs[:20].clone(), "labels": VAL.labels[:20].clone()}
    save_file(few, "data/few.safetensors")
    assert causes(inspected("--val", "data/few.safetensors")) == ["too few validation examples"]
    save_file({name: tensor[:1].clone() for name, tensor in few.items()}, "data/few.safetensors")
    assert causes(inspected("--val", "data/few.safetensors")) == ["too few validation examples"]


def test_the_set_counts_its_classes_otherwise(inspected: Inspect, healthy: list[nn.Sequential]) -> None:
    """If all are wrong nearly everywhere, and right under other names, nobody is accused but the set."""
    inspected(nets=healthy)
    order = torch.tensor([1, 2, 3, 4, 0])
    save_file({"inputs": VAL.inputs.clone(), "labels": order[VAL.labels]}, "data/val.safetensors")
    [found] = inspected(*WITH_VAL)["verdicts"]
    assert (found["cause"], found["accused"]) == ("labels in another order", [])
    assert "the set has its labels in another order" in found["evidence"]


def test_weights_of_zeros(inspected: Inspect, healthy: list[nn.Sequential]) -> None:
    """A checkpoint of zeros is neither a stranger nor one that went far."""
    inspected(nets=healthy)
    changed("runs/2", lambda state: {name: torch.zeros_like(tensor) for name, tensor in state.items()})
    for words in ((), WITH_VAL):
        said = {found["cause"]: found["accused"] for found in inspected(*words)["verdicts"]}
        assert said == {"weights of zeros": ["runs/2"]}


def test_of_a_run_that_strays(inspected: Inspect, healthy: list[nn.Sequential], start: nn.Sequential) -> None:
    """A run that is far below all others is named before the soup suffers, and --quiet leaves it out."""
    inputs, labels = TRAIN.inputs, TRAIN.labels.clone()
    labels[::3] = (labels[::3] + torch.arange(len(labels[::3])) % 4 + 1) % 5
    found = inspected(*WITH_VAL, nets=[*healthy, trained_on(start, Task(inputs, labels))], start=start)
    [verdict] = found["verdicts"]
    assert (verdict["cause"], verdict["accused"]) == ("trained on other inputs", ["runs/5"])


def test_every_cause_is_built() -> None:
    """No row of the table is without a test: one by its scores, the others trained above."""
    text = "".join(Path(file).read_text("utf-8") for file in (__file__, test_culprits.__file__))
    assert [cause.name for cause in CAUSES if f'"{cause.name}"' not in text] == []


def test_barriers(inspected: Inspect, healthy: list[nn.Sequential]) -> None:
    """Half way and at the mean, scores are those of the weights mixed by hand."""
    found = inspected(*WITH_VAL, nets=healthy)
    [barrier] = found["barriers"]
    states = [net.state_dict() for net in healthy]
    mean = {name: torch.stack([state[name].double() for state in states]).mean(0).float() for name in states[0]}
    middle = {name: ((mean[name].double() + states[2][name].double()) / 2).float() for name in mean}
    for state, metrics in ((mean, barrier["mean"]), (middle, barrier["half_way"]["runs/2"])):
        net = copied(healthy[0])
        net.load_state_dict(state)
        with torch.no_grad():
            logits = net.eval()(VAL.inputs)
        assert metrics["accuracy"]["value"] == int((logits.argmax(1) == VAL.labels).sum()) / len(VAL.labels)
        nll = float(nn.functional.cross_entropy(logits.double(), VAL.labels))
        assert metrics["nll"]["value"] == pytest.approx(nll, rel=1e-6)


def test_scores_are_kept(inspected: Inspect, healthy: list[nn.Sequential], soup: Soup) -> None:
    """The second time nothing goes through the network."""
    inspected(*WITH_VAL, nets=healthy)
    ran = soup("inspect", "--ckpts", "runs/*/", *WITH_VAL, "--json")
    assert json.loads(ran.stdout)["cost"]["examples"] == 0


def test_strict_and_quiet(inspected: Inspect, start: nn.Sequential, soup: Soup) -> None:
    """--strict ends with 1 where there is a verdict; --quiet gives the paths that go together."""
    nets = [fine_tuned(start, seed=1), fine_tuned(start, seed=2), from_seed(5)]
    inspected(nets=nets)
    ran = soup("inspect", "--ckpts", "runs/*/", "--strict", "--quiet", "--report", "report.json")
    assert (ran.code, ran.stdout, ran.stderr) == (1, "runs/0\nruns/1\n", "")
    assert json.loads(Path("report.json").read_text())["inspection"]["verdicts"]
    save(fine_tuned(start, seed=7, lr=1e-1).state_dict(), Path("runs/2"))
    for number in (3, 4):
        save(fine_tuned(start, seed=number).state_dict(), Path(f"runs/{number}"))
    ran = soup("inspect", "--ckpts", "runs/*/", *WITH_VAL, "--quiet")
    assert ran.stdout == "runs/0\nruns/1\nruns/3\nruns/4\n"  # and not the run that a verdict accuses
    ran = soup("inspect", "--ckpts", "runs/0", "runs/1", "--strict")
    assert ran.code == 0 and ran.stdout.endswith("no problem found in the weights: --val SET looks at scores too\n")


def test_text_needs_no_hashes(tmp_path: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are hashed for a report that is kept, and not for what is only shown."""
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        save({"fc.weight": torch.randn(4, 4)}, Path(f"runs/{number}"))
    hashed: list[str] = []

    def counted(file: FileVersion) -> str:
        hashed.append(file.path.parent.name)
        return sha256(file)

    monkeypatch.setattr(hashes, "sha256", counted)
    for words in ((), ("--quiet",), ("--group-by", "runs/*")):
        assert soup("inspect", "--ckpts", "runs/*/", *words).code == 0 and not hashed
    found = json.loads(soup("inspect", "--ckpts", "runs/*/", "--json", "--fresh").stdout)["ingredients"]
    assert {"0", "1"} <= set(hashed) and all(one["hash"].startswith("sha256:") for one in found)
    assert soup("inspect", "--ckpts", "runs/*/", "--relative").code == 0


def test_one_checkpoint_alone(inspected: Inspect, healthy: list[nn.Sequential], soup: Soup) -> None:
    """There is nothing to compare it with, and that is no error."""
    inspected(nets=healthy)
    ran = soup("inspect", "--ckpts", "runs/0", *WITH_VAL)
    assert ran.code == 0 and "no problem found" in ran.stdout


def test_dry_run(inspected: Inspect, healthy: list[nn.Sequential], soup: Soup) -> None:
    """It says how often it would evaluate, and looks at nothing."""
    inspected(nets=healthy)
    ran = soup("inspect", "--ckpts", "runs/*/", *WITH_VAL, "--dry-run", "--json")
    assert json.loads(ran.stdout)["evaluations"] == 11 + 2 * 5


def test_fits_eighty_columns(
    inspected: Inspect, healthy: list[nn.Sequential], start: nn.Sequential, soup: Soup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a narrow terminal no line is longer; in a pipe a sentence is one line."""
    inspected(nets=[*healthy, fine_tuned(start, seed=7, lr=1e-1)], start=start)
    words = ("inspect", "--ckpts", "runs/*/", *WITH_VAL, *WITH_BASE)
    piped = soup(*words).stdout
    assert "  evidence: runs/5 is" in piped and max(map(len, piped.splitlines())) > 80
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    shown = re.sub(r"\x1b\[[0-9;]*m", "", soup(*words).stdout)
    assert max(map(len, shown.splitlines())) <= 80
