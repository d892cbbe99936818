"""soup.yaml to frozen models: every problem at once, precedence, paths beside the recipe."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pydantic
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from soupcli.errors import RecipeError
from soupcli.recipe.networks import NETWORKS, PythonNetwork, TimmNetwork
from soupcli.recipe.precedence import load_recipe
from soupcli.recipe.recipe import Recipe
from soupcli.recipe.sets import ArraysSet, CommandSet, ImagesSet, PythonSet, TextSet

CONTRACT = """
model: {timm: vit_base_patch32_clip_224, args: {num_classes: 1000}}
val:
  imagenet-val: {images: /data/imagenet/val}
  sst2:         {text: data/sst2-dev.jsonl, input: [sentence], label: label}
  digits:       {arrays: digits-val.safetensors}
  mine:         {python: "my_eval.py:evaluate"}
  theirs:       {command: "python eval.py --weights {checkpoint}", metric: accuracy}
metric: accuracy
greedy:  {accept: ">="}
learned: {per: layer}
out: soup/
"""


def load(tmp_path: Path, text: str, **overlays: Any) -> Recipe:
    file = tmp_path / "soup.yaml"
    file.write_text(text)
    return load_recipe(file, **overlays)


def problems(tmp_path: Path, text: str, **overlays: Any) -> list[str]:
    with pytest.raises(RecipeError) as raised:
        load(tmp_path, text, **overlays)
    return str(raised.value).replace(f"{tmp_path}/", "").splitlines()


@pytest.mark.parametrize(
    ("key", "value", "hint"),
    [
        ("holdout", 3, "holdout: Share of each class of the first set (of every set that selects"),
        ("learned.steps", 0, "steps: "),
        ("window.between", [5], "between: First and last step, both included"),
        ("val.a.arrays", 3, "arrays: "),
        ("greedy.foo", 1, "the keys here are accept, min_delta, "),
        ("foo", 1, "soup schema recipe describes every key"),
    ],
)
def test_an_error_says_what_the_key_means(tmp_path: Path, key: str, value: object, hint: str) -> None:
    """The hint is the first sentence of what the reference says of the key."""
    with pytest.raises(RecipeError) as raised:
        load(tmp_path, "val: {a: {arrays: a.safetensors}}", flags={key: value})
    assert str(raised.value.hint).startswith(hint)


def test_the_contract(tmp_path: Path) -> None:
    """The contract's recipe reads; paths inside it lie beside it, an absolute path stays."""
    recipe = load(tmp_path, CONTRACT)
    assert recipe.model == TimmNetwork(timm="vit_base_patch32_clip_224", args={"num_classes": 1000})
    assert recipe.val == {
        "imagenet-val": ImagesSet(images=Path("/data/imagenet/val")),
        "sst2": TextSet(text=tmp_path / "data/sst2-dev.jsonl", input=["sentence"], label="label"),
        "digits": ArraysSet(arrays=tmp_path / "digits-val.safetensors"),
        "mine": PythonSet(python=f"{tmp_path}/my_eval.py:evaluate"),
        "theirs": CommandSet(command="python eval.py --weights {checkpoint}", metric="accuracy"),
    }
    assert (recipe.metric, recipe.greedy.accept, recipe.learned.per) == ("accuracy", ">=", "layer")
    assert recipe.out == tmp_path / "soup"


def test_defaults() -> None:
    """Without a file a recipe is its defaults, and cannot be changed."""
    recipe = load_recipe(None)
    assert (recipe.metric, recipe.out, recipe.device) == ("accuracy", Path("soup"), "auto")
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        recipe.metric = "nll"


def test_every_problem_at_once(tmp_path: Path) -> None:
    """All problems are told together, in the order of the file, each with its place, its key and what was expected."""
    text = """model: {tim: resnet50}
val:
  a: {array: x}
  b: {images: x, text: y}
  c: data/val
  d: {text: x, labell: y, input: []}
metric: 3
greedy: {accept: "=", min_delta: -1, min_delta: 2}
learned:
  step: 10
batch_size: many
devicee: cpu
max_shard_size: 5 parsecs
device: gpu
dtype: flaot32
workers: 1.5
"""
    kinds = "needs exactly one of the keys"
    assert problems(tmp_path, text) == [
        f"soup.yaml:1:8: model: {kinds} {', '.join(NETWORKS)}, did you mean 'timm'?",
        f"soup.yaml:3:6: val.a: {kinds} images, text, arrays, tokens, lm_eval, python, command, did you mean 'arrays'?",
        f"soup.yaml:4:6: val.b: {kinds} images, text, arrays, tokens, lm_eval, python, command",
        f"soup.yaml:5:6: val.c: {kinds} images, text, arrays, tokens, lm_eval, python, command, got 'data/val'",
        "soup.yaml:6:16: val.d.labell: unknown key, did you mean 'label'?",
        "soup.yaml:6:34: val.d.input: expected a list of at least 1, got []",
        "soup.yaml:7:9: metric: expected text, got 3",
        "soup.yaml:8:18: greedy.accept: expected '>=' or '>', got '=', did you mean '>='?",
        "soup.yaml:8:34: greedy.min_delta: expected at least 0.0, got -1",
        "soup.yaml:8:38: greedy.min_delta: given twice, first at soup.yaml:8:23",
        "soup.yaml:10:3: learned.step: unknown key, did you mean 'steps'?",
        "soup.yaml:11:13: batch_size: expected a whole number, got 'many'",
        "soup.yaml:12:1: devicee: unknown key, did you mean 'device'?",
        "soup.yaml:13:17: max_shard_size: expected a size such as 5GB or 500MB, got '5 parsecs'",
        "soup.yaml:14:9: device: expected auto, cpu, cuda, cuda:N or mps, got 'gpu'",
        "soup.yaml:15:8: dtype: expected 'float64', 'float32', 'float16' or 'bfloat16', got 'flaot32', "
        "did you mean 'float32'?",
        "soup.yaml:16:10: workers: expected a whole number, got 1.5",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("model:\n  timm: 3\n", "soup.yaml:2:9: model.timm: expected text, got 3"),
        ("model: {timm: x, arg: {}}\n", "soup.yaml:1:18: model.arg: unknown key, did you mean 'args'?"),
        ("model: {timm: x, args: 3}\n", "soup.yaml:1:24: model.args: expected a mapping of keys, got 3"),
        ("model: {python: net.py}\n", "soup.yaml:1:17: model.python: expected 'file.py:function', got 'net.py'"),
        ("val:\n", "soup.yaml:1:5: val: expected a mapping of keys, got nothing"),
        ("val: [a]\n", "soup.yaml:1:6: val: expected a mapping of keys, got ['a']"),
        ("val: {timm: {arrays: 3}}\n", "soup.yaml:1:22: val.timm.arrays: expected a path, got 3"),
        ("val: {arrays: {arrays: x, foo: 1}}\n", "soup.yaml:1:27: val.arrays.foo: unknown key"),
        ("out: [x]\n", "soup.yaml:1:6: out: expected a path, got ['x']"),
        ("greedy: 3\n", "soup.yaml:1:9: greedy: expected a mapping of keys, got 3"),
        ("greedy: {min_delta: .inf}\n", "soup.yaml:1:21: greedy.min_delta: expected a number, got inf"),
        ("batch_size: 0\n", "soup.yaml:1:13: batch_size: expected more than 0, got 0"),
        ("max_shard_size: 0\n", "soup.yaml:1:17: max_shard_size: expected more than 0, got 0"),
        ("ckpts: runs\n", "soup.yaml:1:8: ckpts: expected a list, got 'runs'"),
        ("val: {a: {python: 'e.py:f', higher_is_better: maybe}}", "soup.yaml:1:47: val.a.higher_is_better: expected "),
        ("_document: 1\n", "soup.yaml:1:1: _document: unknown key"),
    ],
)
def test_problem(tmp_path: Path, text: str, line: str) -> None:
    """Each kind of problem names the key as the file has it, also where a set bears the name of a kind."""
    [found] = problems(tmp_path, text)
    assert found.startswith(line)


@pytest.mark.parametrize(("size", "count"), [("5GB", 5 * 10**9), ("1.5 kb", 1500), ("10B", 10), (123, 123)])
def test_sizes(tmp_path: Path, size: object, count: int) -> None:
    """Sizes are counts of bytes or decimal units, as Hugging Face writes them."""
    assert load(tmp_path, f"max_shard_size: {size}\n").max_shard_size == count


def test_precedence(tmp_path: Path) -> None:
    """Flag, then --set, then variable, then file, then default."""
    text = "metric: file\nbatch_size: 1\nworkers: 1\ndevice: cpu\n"
    recipe = load(
        tmp_path,
        text,
        variables={"metric": "variable", "batch_size": 2, "workers": 2},
        settings={"metric": "set", "batch_size": "3"},
        flags={"metric": "flag"},
    )
    assert (recipe.metric, recipe.batch_size, recipe.workers, recipe.device) == ("flag", 3, 2, "cpu")
    assert recipe.greedy.accept == ">="


def test_set_is_validated(tmp_path: Path) -> None:
    """--set goes through the same validation, and is named where it is at fault; it may say whole parts."""
    assert problems(tmp_path, "", settings={"greedy.mindelta": "1", "gredy.x": "1", "batch_size": "a"}) == [
        "--set batch_size: expected a whole number, got 'a'",
        "--set gredy.x: unknown key, did you mean 'greedy'?",
        "--set greedy.mindelta: unknown key, did you mean 'min_delta'?",
    ]
    assert problems(tmp_path, "", settings={"model": "{timm: x, arg: 1}"}) == [
        "--set model: model.arg: unknown key, did you mean 'args'?"
    ]
    assert problems(tmp_path, "", settings={"model": "{a: 1, a: 2}"}) == [
        "--set model: a: given twice, first at --set model"
    ]
    recipe = load(tmp_path, "", settings={"val.new": "{arrays: x.safetensors}", "greedy.accept": "'>'"})
    assert recipe.val == {"new": ArraysSet(arrays=tmp_path / "x.safetensors")}
    assert recipe.greedy.accept == ">"


def test_flags_and_variables_are_named(tmp_path: Path) -> None:
    """A flag or variable at fault is named as the user typed it."""
    flags = {"device": "gpu", "max_shard_size": "x"}
    assert problems(tmp_path, "device: cpu\n", flags=flags, variables={"greedy.min_delta": -1.0}) == [
        "--device: expected auto, cpu, cuda, cuda:N or mps, got 'gpu'",
        "--max-shard-size: expected a size such as 5GB or 500MB, got 'x'",
        "SOUP_MIN_DELTA: expected at least 0.0, got -1.0",
    ]


def test_a_key_is_named_once(tmp_path: Path) -> None:
    """What a section says of one of its keys stands behind the flag that gave it, without the key again."""
    assert problems(tmp_path, "{}", flags={"mix.weights": "1.5,-0.5"}) == [
        "--weights: -0.5 is negative (any_weights: true takes it)"
    ]


def test_out_by_flag_is_in_the_working_folder(tmp_path: Path) -> None:
    """`out` of the file or --set lies beside the recipe, that of a flag or variable in the working folder."""
    assert load(tmp_path, "out: x\n").out == tmp_path / "x"
    assert load(tmp_path, "out: x\n", flags={"out": Path("y")}).out == Path("y")
    assert load(tmp_path, "out: x\n", variables={"out": Path("y")}).out == Path("y")
    assert load(tmp_path, "out: x\n", settings={"out": "z"}).out == tmp_path / "z"
    assert load(tmp_path, "out: x\n", variables={"out": Path("y")}, settings={"out": "z"}).out == tmp_path / "z"


def test_ckpts_lie_beside_the_recipe(tmp_path: Path) -> None:
    """Globs of the recipe lie beside it and keep a final slash; stdin and home stay what they are."""
    recipe = load(tmp_path, "ckpts: [runs/*/, a.pt, -, ~/x/*, /abs/]\n")
    assert recipe.ckpts == [f"{tmp_path}/runs/*/", f"{tmp_path}/a.pt", "-", "~/x/*", "/abs/"]


def test_located(tmp_path: Path) -> None:
    """A later error that begins with a key gets the place of the key; other errors stay as they are."""
    recipe = load(tmp_path, "metric: foo\nmodel: {timm: x}\n", flags={"device": "cpu"}, settings={"dtype": "float32"})
    assert recipe.located("metric: not known") == f"{tmp_path}/soup.yaml:1:9: metric: not known"
    assert recipe.located("model.timm: no 'x'") == f"{tmp_path}/soup.yaml:2:15: model.timm: no 'x'"
    assert recipe.located("device: not there") == "--device: not there"
    assert recipe.located("dtype: not there") == "--set dtype: not there"
    assert recipe.located("batch_size: not there") == "batch_size: not there"
    assert recipe.located("runs/a: broken") == "runs/a: broken"


_names = st.text("abcdefgh-", min_size=1, max_size=8)
_words = st.text("abcxyz019 ./:'\"#{}é", min_size=1, max_size=12)
_sets = st.one_of(
    st.builds(ArraysSet, arrays=_words.map(Path)),
    st.builds(
        ImagesSet, images=_words.map(Path), class_to_index=st.none() | st.dictionaries(_names, st.integers(0, 9))
    ),
    st.builds(TextSet, text=_words.map(Path), input=st.lists(_words, min_size=1, max_size=2), label=_words),
    st.builds(CommandSet, command=_words, metric=st.none() | _words, higher_is_better=st.booleans()),
)
_recipes = st.builds(
    Recipe,
    model=st.none()
    | st.builds(TimmNetwork, timm=_words, args=st.dictionaries(_names, st.integers() | st.booleans() | _words))
    | st.just(PythonNetwork(python="net.py:build")),
    val=st.dictionaries(_names, _sets, max_size=3),
    metric=_words,
    greedy=st.fixed_dictionaries({"accept": st.sampled_from([">=", ">"]), "min_delta": st.floats(0, 1e6)}),
    batch_norm=st.sampled_from(["average", "recalibrate", "keep"]),
    max_shard_size=st.integers(1, 10**12),
    dtype=st.sampled_from([None, "float32", "bfloat16"]),
    batch_size=st.integers(1, 10**6),
)


@given(_recipes)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> None:
    """A resolved recipe, as the report holds it, written as YAML reads back as the same recipe."""
    file = Path("round-trip.yaml")
    with contextlib.chdir(tmp_path_factory.getbasetemp()):
        file.write_text(yaml.safe_dump(recipe.model_dump(mode="json", exclude_none=True), sort_keys=False), "utf-8")
        assert load_recipe(file).model_dump() == recipe.model_dump()
