"""Every layout through the commands: what was taken is reported, what does not go together ends with exit code 2."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint import state_dict_saver

from tests.conftest import Ran, build_net

Soup = Callable[..., Ran]


def state_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def repack(family: Path, pack: Callable[[Path, dict[str, torch.Tensor], int], None]) -> None:
    """Gives every ingredient of the family another layout."""
    for number, folder in enumerate(sorted((family / "runs").iterdir())):
        state = state_of(folder)
        (folder / "model.safetensors").unlink()
        pack(folder, state, number)


def report_of(ran: Ran) -> dict[str, Any]:
    assert ran.code == 0, ran.stderr
    return json.loads(ran.stdout)  # type: ignore[no-any-return]


class Config:
    """Stands in a checkpoint beside the weights."""


def test_training_checkpoints(family: Path, soup: Soup) -> None:
    """The averaged weights of training checkpoints are ranked beside what their trainer measured, and reported."""
    expected = {folder.name: state_of(folder) for folder in (family / "runs").iterdir()}

    def pack(folder: Path, state: dict[str, torch.Tensor], number: int) -> None:
        raw = {f"module.{name}": torch.zeros_like(tensor) for name, tensor in state.items()}
        content = {"arch": "net", "optimizer": {}, "args": argparse.Namespace(lr=0.1), "metric": 70.0 + number}
        torch.save({**content, "state_dict": raw, "state_dict_ema": state}, folder / "last.pth.tar")

    repack(family, pack)
    table = soup("rank", "--ckpts", "runs/*/", "--val", "val")
    assert table.code == 0, table.stderr
    lines = table.stdout.splitlines()
    assert lines[0].split() == ["checkpoint", "val", "accuracy", "↑", "by", "its", "trainer"]
    assert {line.split()[0]: line.split()[-1] for line in lines[1:]} == {
        f"runs/{number}": f"{70 + number}" for number in range(len(lines) - 1)
    }
    report = report_of(soup("uniform", "--ckpts", "runs/*/", "--json"))
    assert [(i["format"], i["key"], i["trainer_metrics"]) for i in report["ingredients"]] == [
        ("timm training", "state_dict_ema", {"metric": 70.0 + number}) for number in range(len(lines) - 1)
    ]
    mean = state_of(family / "soup")
    for name, tensor in mean.items():
        stacked = torch.stack([state[name].double() for state in expected.values()])
        assert torch.equal(tensor, stacked.mean(dim=0).float())
    zeros = soup("uniform", "--ckpts", "runs/*/", "--key", "state_dict", "--force", "--quiet")
    assert zeros.code == 0, zeros.stderr
    assert all(not tensor.any() for tensor in state_of(family / "soup").values())


def test_no_column_where_no_trainer_measured(family: Path, soup: Soup) -> None:
    """The table has the trainer's column only where there is something to show."""
    assert "trainer" not in soup("rank", "--ckpts", "runs/*/", "--val", "val").stdout


def test_keys_that_differ(family: Path, soup: Soup) -> None:
    """Averaged weights are not mixed with trained ones: both are named, and the flag that settles it."""

    def pack(folder: Path, state: dict[str, torch.Tensor], number: int) -> None:
        torch.save({"state_dict": state, **({"state_dict_ema": state} if number == 1 else {})}, folder / "x.pt")

    repack(family, pack)
    for command in (["uniform"], ["greedy", "--val", "val"], ["rank", "--val", "val"]):
        ran = soup(*command, "--ckpts", "runs/*/")
        assert ran.code == 2
        assert (
            "runs/1: its weights are taken from 'state_dict_ema', those of runs/0 from 'state_dict'\n\n"
            "hint: --key state_dict takes the same from all"
        ) in ran.stderr
    assert soup("uniform", "--ckpts", "runs/*/", "--key", "state_dict", "--quiet").code == 0
    assert json.loads((family / "soup/soup.json").read_text())["recipe"]["key"] == "state_dict"


def test_classes_need_no_flag(family: Path, soup: Soup) -> None:
    """Objects beside the weights open as they are; --allow-class does nothing, and one line says so."""
    repack(family, lambda folder, state, _: torch.save({"state_dict": state, "cfg": Config()}, folder / "x.ckpt"))
    first = report_of(soup("uniform", "--ckpts", "runs/*/", "--json"))
    flagged = soup("uniform", "--ckpts", "runs/*/", "--allow-class", "a.B", "--json", "--force")
    assert first["soup"]["hash"] == report_of(flagged)["soup"]["hash"]
    assert flagged.stderr.count("--allow-class is not needed any more") == 1


def test_what_is_left_out_is_said(family: Path, soup: Soup) -> None:
    """A second part with tensors is named on stderr, once for all ingredients, in the plan and in the report."""
    head = {"fc.weight": torch.ones(2)}
    repack(family, lambda folder, state, _: torch.save({"model": state, "head": head}, folder / "x.pt"))
    note = "left out beside 'model': head; --key '*' mixes all as one network"
    for flags in ([], ["--dry-run"]):
        ran = soup("uniform", "--ckpts", "runs/*/", "--json", *flags)
        assert all(one["notes"] == [note] for one in report_of(ran)["ingredients"])
        assert ran.stderr.count(note) == 1
        assert ran.stderr.startswith("runs/0 and ")


def test_every_broken_checkpoint_is_named(family: Path, soup: Soup) -> None:
    """Where several cannot be opened, each has a line with its reason, in every command."""
    names = sorted(folder.name for folder in (family / "runs").iterdir())
    (family / f"runs/{names[0]}/model.safetensors").write_bytes(b"")
    (family / f"runs/{names[1]}/model.safetensors").rename(family / f"runs/{names[1]}/weights.bin.model.safetensors")
    (family / f"runs/{names[1]}/weights.bin.model.safetensors").write_bytes(b"cut short")
    for command in ("inspect", "uniform", "rank"):
        ran = soup(command, "--ckpts", "runs/*/", "absent", *(["--val", "val"] if command == "rank" else []))
        assert ran.code == 2
        first, *lines = ran.stderr.splitlines()
        assert first == f"3 of {len(names) + 1} checkpoints cannot be opened:"
        assert [line.split(":")[0] for line in lines[:3]] == [
            "  absent",
            f"  runs/{names[0]}/model.safetensors",
            f"  runs/{names[1]}/weights.bin.model.safetensors",
        ]


def test_averaged_and_trained_weights_under_one_name(family: Path, soup: Soup) -> None:
    """Lightning's averaged weights have the name of trained ones: they are not mixed with those unasked."""

    def pack(folder: Path, state: dict[str, torch.Tensor], number: int) -> None:
        swapped = {"current_model_state": state, "averaging_state": {}} if number == 1 else {}
        torch.save({"state_dict": state, **swapped}, folder / "x.ckpt")

    repack(family, pack)
    ran = soup("uniform", "--ckpts", "runs/*/")
    assert ran.code == 2
    assert (
        "runs/1: its weights under 'state_dict' are averages over the training, those of runs/0 are not" in ran.stderr
    )
    assert soup("uniform", "--ckpts", "runs/*/", "--key", "state_dict").code == 0


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_distributed(family: Path, soup: Soup) -> None:
    """Distributed checkpoints open as they are, for `soup mix` too; --trust is not needed any more."""
    repack(family, lambda folder, state, _: state_dict_saver.save({"model": state}, checkpoint_id=folder))
    report = report_of(soup("greedy", "--ckpts", "runs/*/", "--val", "val", "--json"))
    assert {(i["format"], i["key"]) for i in report["ingredients"]} == {("distributed", "model")}
    again = soup("mix", "soup/soup.json", "--out", "again", "--trust", "--json")
    assert report["soup"]["hash"] == report_of(again)["soup"]["hash"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--key", "state_dict"], "--key state_dict: these checkpoints hold one bare state dict each"),
        (["--base", "runs/0"], "--base runs/0: these checkpoints need none"),
        (["--adapter-rank", "4"], "--adapter-rank 4: these checkpoints are no adapters"),
        (["--exclude", "head.*"], "--exclude head.*: fits no tensor"),
        (["--include", "0.*", "3.*"], "--include 3.*: fits no tensor"),
        (["--exclude", "*"], "no tensor is left to mix"),
        (["--base", "absent", "--exclude", "2.*"], "absent: no such file or folder"),
        (["--adapter-rank", "0"], "--adapter-rank: expected more than 0, got 0"),
    ],
)
def test_flags_that_say_nothing(family: Path, soup: Soup, flags: list[str], message: str) -> None:
    """A flag that does not apply, and a pattern that fits nothing, is a mistake of the command line."""
    ran = soup("uniform", "--ckpts", "runs/*/", *flags)
    assert ran.code == 2
    assert message in ran.stderr
    assert not (family / "soup").exists()


@pytest.mark.parametrize("flags", [["--exclude", "2.*"], ["--include", "0.*"], ["--exclude", "2.weight", "2.bias"]])
def test_head_of_the_best(family: Path, soup: Soup, flags: list[str]) -> None:
    """What is not mixed is the best ingredient's, bit for bit; evaluated, written, reported and mixed again so."""
    report = report_of(soup("greedy", "--ckpts", "runs/*/", "--val", "val", *flags, "--json"))
    best, members = Path(report["best"]["path"]), report["soup"]["members"]
    assert report["soup"]["not_mixed"] == ["2.bias", "2.weight"]
    assert report["soup"]["kept_from"] == str(best)
    made = state_of(family / "soup")
    states = [state_of(Path(member)) for member in members]
    for name, tensor in made.items():
        if name.startswith("2."):
            assert torch.equal(tensor, state_of(best)[name])
        else:
            assert torch.equal(tensor, torch.stack([state[name].double() for state in states]).mean(dim=0).float())
    alone = report_of(soup("eval", "--ckpts", "soup/", "--val", "val", "--json"))
    assert alone["best"]["scores"]["val"]["accuracy"] == report["soup"]["scores"]["val"]["accuracy"]
    again = report_of(soup("mix", "soup/soup.json", "--out", "again", "--json"))
    assert again["soup"]["hash"] == report["soup"]["hash"]


def test_selection_is_part_of_what_was_evaluated(family: Path, soup: Soup) -> None:
    """Scores that another choice of tensors left behind are not taken for this one's."""
    whole = report_of(soup("uniform", "--ckpts", "runs/*/", "--val", "val", "--json"))
    again = report_of(soup("uniform", "--ckpts", "runs/*/", "--val", "val", "--exclude", "0.*", "--force", "--json"))
    assert again["cost"]["examples"] > 0
    alone = report_of(soup("eval", "--ckpts", "soup/", "--val", "val", "--json", "--fresh"))
    assert alone["best"]["scores"]["val"]["accuracy"] == again["soup"]["scores"]["val"]["accuracy"]
    assert whole["soup"]["hash"] != again["soup"]["hash"]


def test_heads_of_other_classes(family: Path, soup: Soup) -> None:
    """Ingredients with heads of different shapes are mixed without them; the base gives a head, and is ranked with."""
    torch.manual_seed(0)
    base = build_net().state_dict()
    save_file(base, family / "base.safetensors")
    for number, folder in enumerate(sorted((family / "runs").iterdir())):
        state = state_of(folder)
        width = 3 + number
        save_file(
            {**state, "2.weight": torch.randn(width, 16), "2.bias": torch.randn(width)}, folder / "model.safetensors"
        )
    refused = soup("uniform", "--ckpts", "runs/*/")
    assert refused.code == 2 and "tensor '2.bias' has shape [4], runs/0 has [3]" in refused.stderr
    flags = ["--ckpts", "runs/*/", "--exclude", "2.*"]
    first = report_of(soup("uniform", *flags, "--json"))
    assert torch.equal(state_of(family / "soup")["2.weight"], state_of(family / "runs/0")["2.weight"])
    based = [*flags, "--base", "base.safetensors"]
    report = report_of(soup("greedy", *based, "--val", "val", "--force", "--json"))
    assert torch.equal(state_of(family / "soup")["2.weight"], base["2.weight"])
    assert report["recipe"]["base"] == "base.safetensors"
    again = report_of(soup("mix", "soup/soup.json", "--out", "again", "--json"))
    assert again["soup"]["hash"] == report["soup"]["hash"] != first["soup"]["hash"]
    ranked = report_of(soup("rank", *based, "--val", "val", "--json"))
    assert ranked["best"]["scores"]["val"] == report["best"]["scores"]["val"]
    shown = soup("uniform", *based, "--force")
    assert "not mixed, taken from base.safetensors: 2 tensors" in shown.stderr


def test_selection_from_the_recipe(family: Path, soup: Soup) -> None:
    """Patterns and base stand in a recipe like any key; paths there are the recipe's, those of flags the shell's."""
    save_file(build_net().state_dict(), family / "base.safetensors")
    recipe = family / "soup.yaml"
    recipe.write_text(recipe.read_text() + "exclude: ['2.*']\nbase: base.safetensors\n")
    report = report_of(soup("uniform", "--recipe", str(recipe), "--ckpts", "runs/*/", "--json"))
    assert report["soup"]["not_mixed"] == ["2.bias", "2.weight"]
    assert report["recipe"]["base"] == str(recipe.parent / "base.safetensors")
    flag = report_of(
        soup("uniform", "-r", str(recipe), "--ckpts", "runs/*/", "--base", "base.safetensors", "--json", "--force")
    )
    assert flag["recipe"]["base"] == "base.safetensors"
    assert flag["soup"]["hash"] == report["soup"]["hash"]


@pytest.fixture
def adapters(family: Path) -> Path:
    """LoRA adapters of the family's first ingredient, by PEFT, in adapters/*/; base.safetensors is the ingredient."""
    peft = pytest.importorskip("peft", reason="peft is not installed")
    state = state_of(family / "runs/0")
    save_file(state, family / "base.safetensors")
    for seed in range(4):
        net = build_net()
        net.load_state_dict(state)
        settings = {"r": 2 + seed % 2, "lora_alpha": 4, "target_modules": ["0", "2"]}
        with warnings.catch_warnings():  # PEFT's advice
            warnings.simplefilter("ignore")
            adapted = peft.get_peft_model(net, peft.LoraConfig(**settings))
            generator = torch.Generator().manual_seed(seed)
            for parameter in (p for p in adapted.parameters() if p.requires_grad):
                parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.15)
            adapted.save_pretrained(family / f"adapters/{seed}")
    return family


ADAPTERS = ["--ckpts", "adapters/*/", "--base", "base.safetensors"]


def test_adapters(adapters: Path, soup: Soup) -> None:
    """A soup of adapters is an adapter: greedy's and uniform's are the same, evaluated as they are mixed."""
    report = report_of(soup("greedy", *ADAPTERS, "--val", "val", "test", "--json"))
    made = report["soup"]
    assert made["path"] == "soup/adapter_model.safetensors"
    assert made["adapter"]["relative_error"] == 0
    assert {i["format"] for i in report["ingredients"]} == {"PEFT adapter"}
    assert {path.name for path in (adapters / "soup").iterdir()} == {*made["files"]}
    assert {"adapter_config.json", "adapter_model.safetensors", "soup.json"} <= {*made["files"]}
    again = report_of(soup("uniform", "--ckpts", *made["members"], "--out", "uniform", "--json"))
    assert again["soup"]["hash"] == made["hash"]
    alone = report_of(soup("eval", "--ckpts", "soup/", "--base", "base.safetensors", "--val", "val", "test", "--json"))
    for name in ("val", "test"):
        assert alone["best"]["scores"][name]["accuracy"] == made["scores"][name]["accuracy"]
    mixed = report_of(soup("mix", "soup/soup.json", "--out", "mixed", "--json"))
    assert mixed["soup"]["hash"] == made["hash"]


@pytest.mark.parametrize("command", ["greedy", "learned"])
def test_merged_adapters(adapters: Path, soup: Soup, command: str) -> None:
    """--merge-adapters writes greedy's and learned's soup as a full network, which scores as it was evaluated."""
    words = [*ADAPTERS, "--val", "val", "--merge-adapters", "--set", "learned.steps=5"]
    report = report_of(soup(command, *words, "--json"))
    assert report["soup"]["path"] == "soup/model.safetensors"
    assert set(load_file("soup/model.safetensors")) == set(load_file("base.safetensors"))
    alone = report_of(soup("eval", "--ckpts", "soup/", "--val", "val", "--json", "--fresh"))
    found, expected = (s["val"]["accuracy"]["value"] for s in (alone["best"]["scores"], report["soup"]["scores"]))
    assert found == pytest.approx(expected, abs=0.01 if command == "learned" else 0)


def test_adapters_at_a_rank(adapters: Path, soup: Soup) -> None:
    """--adapter-rank: the error is reported, and the scores are those of what was written."""
    flags = [*ADAPTERS, "--adapter-rank", "2", "--val", "val"]
    report = report_of(soup("uniform", *flags, "--json"))
    assert report["soup"]["adapter"]["rank"] == 2
    assert 0 < report["soup"]["adapter"]["relative_error"] < 1
    assert json.loads((adapters / "soup/adapter_config.json").read_text())["r"] == 2
    alone = report_of(soup("eval", "--ckpts", "soup/", "--base", "base.safetensors", "--val", "val", "--json"))
    assert alone["best"]["scores"]["val"]["accuracy"] == report["soup"]["scores"]["val"]["accuracy"]
    shown = soup("uniform", *flags, "--force")
    assert "adapter of rank 2: relative error against the exact average" in shown.stderr
    again = report_of(soup("mix", "soup/soup.json", "--out", "again", "--json"))
    assert again["soup"]["hash"] == report["soup"]["hash"]


def test_adapters_without_their_base(adapters: Path, soup: Soup) -> None:
    """Without a base, adapters are mixed; to evaluate them the base is asked for."""
    assert soup("uniform", "--ckpts", "adapters/*/", "--quiet").stdout == "soup/adapter_model.safetensors\n"
    ran = soup("rank", "--ckpts", "adapters/*/", "--val", "val")
    assert ran.code == 2
    assert (
        "adapters/0: its base (not named) is not a folder here" in ran.stderr
        and "--base names the network" in ran.stderr
    )


def test_base_of_adapters_is_part_of_what_was_evaluated(adapters: Path, soup: Soup) -> None:
    """The same adapters on another base are evaluated anew."""
    first = report_of(soup("rank", *ADAPTERS, "--val", "val", "--json"))
    other = build_net().state_dict()
    save_file(other, adapters / "base.safetensors")
    second = report_of(soup("rank", *ADAPTERS, "--val", "val", "--json"))
    assert second["cost"]["examples"] == first["cost"]["examples"] > 0


def test_heads_of_adapters(adapters: Path, soup: Soup) -> None:
    """--exclude leaves the best adapter's change of a layer as it is."""
    report = report_of(soup("greedy", *ADAPTERS, "--val", "val", "--exclude", "2.*", "--json"))
    made = load_file(adapters / "soup/adapter_model.safetensors")
    best = load_file(Path(report["best"]["path"]) / "adapter_model.safetensors")
    changed = {name: tensor for name, tensor in best.items() if ".2." in name}
    assert len(changed) == 2 and all(torch.equal(made[name], tensor) for name, tensor in changed.items())
    alone = report_of(soup("eval", "--ckpts", "soup/", "--base", "base.safetensors", "--val", "val", "--json"))
    assert alone["best"]["scores"]["val"]["accuracy"] == report["soup"]["scores"]["val"]["accuracy"]


def test_adapters_for_a_command(adapters: Path, soup: Soup) -> None:
    """A command that evaluates sees adapters: an ingredient where it lies, a mixture as a folder of one."""
    script = adapters / "look.py"
    script.write_text(
        "import json, pathlib, sys\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "rank = json.loads((folder / 'adapter_config.json').read_text())['r']\n"
        "assert (folder / 'adapter_model.safetensors').exists()\n"
        "print(json.dumps({'accuracy': rank / 100}))\n"
    )
    recipe = adapters / "soup.yaml"
    command = f"{sys.executable} {script} {{checkpoint}}"
    recipe.write_text(recipe.read_text().replace("val:\n", f'val:\n  ranks: {{command: "{command}"}}\n'))
    report = report_of(soup("uniform", *ADAPTERS, "--val", "ranks", "--json"))
    assert report["soup"]["scores"]["ranks"]["accuracy"]["value"] == 0.1


def test_learned_adapters(adapters: Path, soup: Soup) -> None:
    """Coefficients that were learned per layer are written as an adapter, which scores as it was evaluated."""
    report = report_of(soup("learned", *ADAPTERS, "--val", "val", "--set", "learned.steps=5", "--json"))
    assert report["soup"]["path"] == "soup/adapter_model.safetensors"
    alone = report_of(soup("eval", "--ckpts", "soup/", "--base", "base.safetensors", "--val", "val", "--json"))
    found, expected = (
        scores["val"]["accuracy"]["value"] for scores in (alone["best"]["scores"], report["soup"]["scores"])
    )
    assert found == pytest.approx(expected, abs=0.01)


def test_learned_heads(family: Path, soup: Soup) -> None:
    """`soup learned` leaves what is not mixed to the best ingredient too."""
    flags = ["--ckpts", "runs/*/", "--val", "val", "--exclude", "2.*", "--set", "learned.steps=5", "--json"]
    report = report_of(soup("learned", *flags))
    best = state_of(Path(report["best"]["path"]))
    made = state_of(family / "soup")
    assert torch.equal(made["2.weight"], best["2.weight"])
    assert not torch.equal(made["0.weight"], best["0.weight"])
    again = report_of(soup("mix", "soup/soup.json", "--out", "again", "--json"))
    assert again["soup"]["hash"] == report["soup"]["hash"]


def test_plan_of_adapters(adapters: Path, soup: Soup) -> None:
    """--dry-run says how many bytes the adapter has, not the network."""
    plan = report_of(soup("uniform", *ADAPTERS, "--dry-run", "--json"))
    report = report_of(soup("uniform", *ADAPTERS, "--json"))
    data = sum(tensor.nbytes for tensor in load_file(adapters / "soup/adapter_model.safetensors").values())
    assert plan["bytes_written"] == data < report["soup"]["bytes"]
