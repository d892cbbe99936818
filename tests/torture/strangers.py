"""What strangers put beside weights: side files, rows, numbers, names, reports, kept files, each changed at random.

python -m tests.torture strangers --seed 0 --inputs 2000
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import socket
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import torch
from safetensors.torch import save_file

from soupcli.cli.app import run
from soupcli.cli.parsing import guarded
from soupcli.datasets.rows import read_rows
from tests.conftest import write_family
from tests.torture.mutations import encoded, mutated_bytes, mutated_json
from tests.torture.targets import Target, command

SECRET = b"a secret of the user's"
SIDE_FILES = ["config.json", "tokenizer.json", "vocab.txt", "preprocessor_config.json", "generation_config.json"]
CONFIG = {
    "architectures": ["BertForSequenceClassification"],
    "model_type": "bert",
    "id2label": {"0": "no", "1": "yes"},
    "label2id": {"no": 0, "yes": 1},
    "torch_dtype": "float32",
}
TRAINER_STATE = {
    "best_metric": 0.5,
    "global_step": 4,
    "log_history": [{"step": 2, "eval_accuracy": 0.25}, {"step": 4, "eval_accuracy": 0.5}],
}
NAMES = [
    "\x1b[2J",
    "a\n::error::b",
    "::set-output name=x::y",
    "\u202egnp.exe",
    "\u2066x",
    "\x85next line",
    "\u2028",
    "a" * 3000,
    "",
    ".",
    "..weight",
    "[red]x[/red]",
    "%s{0}",
    "<script>",
    "\x7f",
    "1",
    "__class__",
]
NUMBERS = ["1" + "0" * 30, "9" * 400, "-" + "9" * 400, "1e400", "NaN", "Infinity", "-0.0", "1e-400", "0x10", "1_0", "٣"]
NAMED = ("-r", "classes.yaml")
EVALUATE = """import json
def evaluate(model, device):
    with open("metrics.json") as file:
        return json.load(file)
"""
LEAKED = 9  # an exit code that no command has: bytes of a file outside were written
WRONG = 8  # another score than the true one


def all_targets() -> list[Target]:
    """Every family, over files that are whole to begin with, in the working folder."""
    write_family(Path(), members=3)
    os.environ["SOUP_CACHE"] = str(Path("cache").absolute())
    Path("secret.txt").write_bytes(SECRET)
    quiet("greedy", "--ckpts", "runs/0", "runs/1", "--val", "val", "test", "--out", "good", "--force", "--quiet")
    quiet("rank", "--ckpts", "runs/*/", "--val", "val", "test", "--report", "rank.json", "--quiet")
    report = json.loads(Path("good/soup.json").read_bytes())
    ranking = json.loads(Path("rank.json").read_bytes())
    for name in ("side", "metric"):
        shutil.copytree("runs/0", name)
    for folder in ("metric", "rated"):
        shutil.copytree("runs/1", folder, dirs_exist_ok=True)
        Path(folder, "trainer_state.json").write_text(json.dumps(TRAINER_STATE))
    fresh = ["--out", "o", "--force", "--quiet"]
    by = ["--top", "1", "--by", "eval_accuracy"]
    return [
        Target("side files", _side_file, _soup_of_side_files),
        command("config", _config, "inspect", "--ckpts", "side", "runs/1"),
        command("trainer state", _trainer_state, "uniform", "--ckpts", "metric", "rated", *by, *fresh),
        Target("rows", _rows, _read_rows),
        command("numbers in a recipe", _numbers, "rank", "--ckpts", "runs/0", "--val", "val", "-r", "x.yaml"),
        Target("numbers as options", _no_file, _with_number),
        command("numbers as scores", _scores, "rank", "--ckpts", "runs/*/", "--scores", "x.jsonl", "--val", "val"),
        command("labels", _labels, "rank", "--ckpts", "runs/0", "--val", "x.safetensors", "--json"),
        command("names of tensors", _tensor_names, "inspect", "--ckpts", "names/*/"),
        command("names of metrics", _metric_names, "rank", "--ckpts", "runs/*/", "--val", "m", "-r", "names.yaml"),
        command("names of classes", _class_names, "rank", "--ckpts", "runs/0", "--val", "c", "--dry-run", *NAMED),
        Target("paths", _paths, lambda: run(["uniform", "--ckpts", "odd/*/", *fresh])),
        command("verify", lambda rng: _report(report, rng), "verify", "shown"),
        command("mix", lambda rng: _report(report, rng), "mix", "shown/soup.json", *fresh),
        command("plot", lambda rng: _any_report(rng, report, ranking), "plot", "x.json", "--out", "x.svg"),
        command("page", lambda rng: _any_report(rng, report, ranking), "report", "x.json", "--out", "x.html"),
        _kept_files(),
    ]


def quiet(*words: str) -> str:
    """Runs a command that cannot fail; returns its stdout."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        assert run(list(words)) == 0, words
    return out.getvalue()


def removed(path: Path) -> None:
    """Takes away whatever has the name."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(6_000_000_000)


def _executable(path: Path) -> None:
    path.write_text("#!/bin/sh\ntouch canary\n")
    path.chmod(0o755)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound, contextlib.suppress(OSError):
        bound.bind(str(path))


ODD_FILES: list[Callable[[Path], object]] = [
    lambda path: path.symlink_to(Path("secret.txt").absolute()),
    lambda path: path.symlink_to("../secret.txt"),
    lambda path: path.symlink_to(path.name),
    lambda path: path.symlink_to("/dev/zero"),
    lambda path: path.symlink_to("/proc/self/environ"),
    os.mkfifo,
    _socket,
    _sparse,
    _executable,
    lambda path: path.mkdir(),
    lambda path: path.write_bytes(b""),
    lambda path: path.write_text('{"auto_map": {"AutoModel": "net.Net"}, "trust_remote_code": true}'),
    lambda path: path.write_bytes(b"[" * 100_000),
    lambda path: path.symlink_to("model.safetensors"),
]


def _side_file(rng: random.Random) -> None:
    removed(Path("side"))
    shutil.copytree("runs/0", "side")
    for name in rng.sample(SIDE_FILES, rng.randint(1, 2)):
        rng.choice(ODD_FILES)(Path("side") / name)


def _soup_of_side_files() -> int:
    code = run(["uniform", "--ckpts", "side", "runs/1", "--out", "o", "--force", "--quiet"])
    written = [file for file in Path("o").rglob("*") if file.is_file()]
    sizes = sum(file.stat().st_blocks for file in written) * 512
    leaked = any(SECRET in file.read_bytes() for file in written if sizes < 1e8)
    return LEAKED if leaked or sizes >= 1e8 else code


def _config(rng: random.Random) -> None:
    removed(Path("side"))
    shutil.copytree("runs/0", "side")
    config = dict(CONFIG)
    odd: list[Any] = [3, None, [3], {"0": 3}, {"x": "y"}, "\ud800", [[]], {"a": {"b": 1}}, 10**400, True, "fp8"]
    for key in rng.sample([*CONFIG, "quantization_config", "auto_map", "vocab_size", "label_names"], 2):
        config[key] = rng.choice(odd)
    path = Path("side") / rng.choice(SIDE_FILES)
    text = encoded(config).encode("utf-8", "surrogatepass")
    path.write_bytes(text if rng.random() < 0.6 else mutated_json(CONFIG, rng))


def _trainer_state(rng: random.Random) -> None:
    data = mutated_json(TRAINER_STATE, rng) if rng.random() < 0.8 else mutated_bytes(b'{"log_history": []}', rng)
    Path("metric/trainer_state.json").write_bytes(data)
    with contextlib.suppress(OSError, OverflowError):
        time = rng.choice([0, -(10**9), 2**33, 2**60])
        os.utime("metric/model.safetensors", (time, time))


def _rows(rng: random.Random) -> None:
    for old in Path().glob("x.rows.*"):
        old.unlink()
    suffix = rng.choice([".parquet", ".parquet", ".jsonl", ".csv", ".tsv"])
    values = [rng.choice([*NAMES, *NUMBERS, 10**30, None, float("nan"), b"x"]) for _ in range(4)]
    path = Path(f"x.rows{suffix}")
    if suffix == ".parquet":
        labels = rng.choice(
            [[1, 0, 1, 0], [1.5, 1e300, 0.0, -1.0], [None] * 4, [[1]] * 4, [{"a": 1}] * 4, [b"\xff"] * 4]
        )
        table = pyarrow.table({"text": list(map(str, values)), "label": labels})
        if rng.random() < 0.3:
            features = rng.choice(['{"info": 3}', "[" * 5000, '{"info": {"features": {"label": {"names": [3]}}}}'])
            table = table.replace_schema_metadata({"huggingface": features})
        pyarrow.parquet.write_table(table, path, compression=rng.choice(["none", "snappy", "gzip"]))
        if rng.random() < 0.7:
            path.write_bytes(mutated_bytes(path.read_bytes(), rng))
        return
    rows = [{"text": str(value), "label": rng.choice(NUMBERS)} for value in values]
    lines = {
        ".jsonl": "".join(f'{{"text": {json.dumps(row["text"])}, "label": {row["label"]}}}\n' for row in rows),
        ".csv": "text,label\n" + "".join(f'"{row["text"]}",{row["label"]}\n' for row in rows),
        ".tsv": "text\tlabel\n" + "".join(f"{row['text']}\t{row['label']}\n" for row in rows),
    }[suffix]
    path.write_bytes(mutated_bytes(lines.encode("utf-8", "surrogatepass"), rng))


def _read_rows() -> int:
    (path,) = Path().glob("x.rows.*")

    def read() -> int:
        read_rows(path, ["text", "label"])
        return 0

    return guarded(read)


KEYS = [
    "batch_size",
    "workers",
    "holdout",
    "greedy.min_delta",
    "learned.steps",
    "learned.lr",
    "max_shard_size",
]


def _numbers(rng: random.Random) -> None:
    text = Path("soup.yaml").read_text()
    for key in rng.sample(KEYS, rng.randint(1, 2)):
        first, _, second = key.partition(".")
        value = rng.choice([*NUMBERS, ".nan", ".inf", "-.inf", "true", "[1]", "1.0", "0"])
        text += f"{first}: {{{second}: {value}}}\n" if second else f"{first}: {value}\n"
    Path("x.yaml").write_text(text)


_drawn: list[str] = []


def _no_file(rng: random.Random) -> None:
    number = rng.choice([*NUMBERS, ".5", "1,2", "0", "-1", "2"])
    words = [
        ["mix", "--ckpts", "runs/0", "runs/1", "--weights", number, "1", "--out", "o", "--force", "--quiet"],
        ["uniform", "--ckpts", "runs/0", "runs/1", f"--max-shard-size={number}GB", "--out", "o", "--force"],
        ["greedy", "--ckpts", "runs/0", "runs/1", "--val", "val", f"--set=greedy.min_delta={number}", "--dry-run"],
        ["rank", "--ckpts", "runs/0", "--val", "val", f"--holdout={number}"],
        ["rank", "--ckpts", "runs/0", "--val", "val", f"--batch-size={number}"],
        ["uniform", "--ckpts", "runs/0", "runs/1", f"--max-shard-size={number}", "--out", "o", "--force"],
        ["uniform", "--ckpts", "runs/*/", f"--last={number}", "--dry-run"],
        ["rank", "--ckpts", "runs/0", "--val", "val", f"--gate={number}"],
    ]
    _drawn[:] = rng.choice(words)


def _with_number() -> int:
    """Whether a gate is met is an answer of its own, 1."""
    code = run(_drawn)
    return 0 if code == 1 and _drawn[-1].startswith("--fail-under") else code


def _scores(rng: random.Random) -> None:
    lines = [f'{{"model_name": "{n}", "val": {rng.choice([*NUMBERS[:6], "0.5", "null", "[1]"])}}}' for n in range(3)]
    text = "\n".join(lines).encode()
    Path("x.jsonl").write_bytes(text if rng.random() < 0.5 else mutated_bytes(text, rng))


def _labels(rng: random.Random) -> None:
    odd = [-1, 2**31, 2**62, -(2**63), 3, 255]
    labels = torch.tensor([rng.choice([0, 1, 2]) for _ in range(7)] + [rng.choice(odd)])
    dtype = rng.choice([torch.int64, torch.uint8, torch.float32, torch.bool, torch.int8, torch.float64])
    inputs = torch.randn(8, rng.choice([8, 8, 8, 7, 0]))
    if rng.random() < 0.3:
        inputs[0] = rng.choice([float("nan"), float("inf"), 3e38])
    save_file({"inputs": inputs, "labels": labels.to(dtype)}, "x.safetensors")


def _tensor_names(rng: random.Random) -> None:
    removed(Path("names"))
    for folder in ("a", "b"):
        Path("names", folder).mkdir(parents=True)
        chosen = rng.sample(NAMES, 3)
        header: dict[str, Any] = {}
        for number, name in enumerate(chosen):
            header[name] = {"dtype": "F32", "shape": [1], "data_offsets": [4 * number, 4 * number + 4]}
        text = json.dumps(header).encode()
        data = struct.pack("<Q", len(text)) + text + bytes(12)
        Path("names", folder, "model.safetensors").write_bytes(data)


def _metric_names(rng: random.Random) -> None:
    Path("names.yaml").write_text(
        Path("soup.yaml").read_text().replace("metric: accuracy", "  m: {python: 'ev.py:evaluate'}")
    )
    chosen = rng.sample([name for name in NAMES if len(name) < 99], 3)
    Path("metrics.json").write_text(json.dumps({"accuracy": 0.5, **dict.fromkeys(chosen, 0.25)}))
    Path("ev.py").write_text(EVALUATE)


def _class_names(rng: random.Random) -> None:
    removed(Path("images"))
    for name in rng.sample([name for name in NAMES if name not in ("", ".") and len(name) < 99], 3):
        with contextlib.suppress(OSError):
            Path("images", name).mkdir(parents=True)
            Path("images", name, "a.png").write_bytes(b"x")
    text = Path("soup.yaml").read_text().replace("metric: accuracy", "  c: {images: images, transform: 'net.py:build'}")
    Path("classes.yaml").write_text(text)


def _paths(rng: random.Random) -> None:
    removed(Path("odd"))
    for name in rng.sample([name for name in NAMES if name not in ("", ".") and len(name) < 99], 3):
        with contextlib.suppress(OSError):
            shutil.copytree("runs/0", os.fsencode(f"odd/{name}").decode("utf-8", "surrogateescape"))
    with contextlib.suppress(OSError):
        odd = Path(os.fsdecode(b"odd/\xff\xfe"))  # bytes that are no text
        shutil.copytree("runs/1", odd)


def _report(report: Any, rng: random.Random) -> None:
    removed(Path("shown"))
    shutil.copytree("good", "shown")
    changed = json.loads(json.dumps(report))
    soup = changed["soup"]
    kind = rng.randrange(10)
    if kind == 0:
        soup["weights"] = [rng.choice([1e308, float("nan"), -1e308, 10**400])] * len(soup["members"])
    elif kind == 1:
        soup["members"] = rng.choice([[], [3], [None], ["\ud800"], ["/dev/zero"], ["../../etc"], ["secret.txt"]])
    elif kind == 2:
        soup["path"] = rng.choice(["/etc/passwd", "../secret.txt", "/dev/zero", "", "\n::error::x", 3])
    elif kind == 3:
        changed["recipe"]["model"] = {"python": rng.choice(["evil.py:build", "/dev/zero:x", "os:system", ":"])}
        Path("evil.py").write_text("open('canary', 'w')\n")
    data = encoded(changed).encode("utf-8", "surrogatepass") if kind < 4 else mutated_json(report, rng)
    Path("shown/soup.json").write_bytes(data)


def _any_report(rng: random.Random, *reports: Any) -> None:
    chosen = rng.choice(reports)
    data = mutated_json(chosen, rng) if rng.random() < 0.85 else mutated_bytes(json.dumps(chosen).encode(), rng)
    Path("x.json").write_bytes(data)


def _kept_files() -> Target:
    """`soup learned` beside a cache of which one file is another: the true scores, or a fault."""
    words = ["learned", "--ckpts", "runs/0", "runs/1", "--val", "val", "--json", "--out", "p", "--force"]
    words += ["--set", "learned.steps=3"]
    true = _results(quiet(*words))
    shutil.copytree("cache", "cache.whole")

    def poisoned(rng: random.Random) -> None:
        shutil.rmtree("cache")
        shutil.copytree("cache.whole", "cache")
        files = sorted(file for file in Path("cache").rglob("*") if file.is_file())
        whole = {file: file.read_bytes() for file in files}
        for file in rng.sample(files, rng.randint(1, 3)):
            _poison(file, rng, whole)

    def read() -> int:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            code = run(words)
        return code if code or _results(out.getvalue()) == true else WRONG

    return Target("kept files", poisoned, read, seconds=5.0)  # a whole fit


def _results(text: str) -> Any:
    report = json.loads(text)
    ingredients = [(item["path"], item["hash"], item["scores"]) for item in report["ingredients"]]
    return json.dumps([ingredients, report["soup"]["scores"], report["soup"]["hash"], report["soup"]["weights"]])


ODD_ENTRIES: list[Callable[[Path], object]] = [
    os.mkfifo,
    _sparse,
    lambda path: path.mkdir(),
    lambda path: path.symlink_to("/dev/zero"),
]


def _poison(file: Path, rng: random.Random, whole: Mapping[Path, bytes]) -> None:
    data = whole[file]
    kind = rng.randrange(9)
    if kind < 3:
        document = json.loads(data) if file.suffix == ".json" else None
        file.write_bytes(mutated_json(document, rng) if document else mutated_bytes(data, rng))
    elif kind == 3:
        file.write_bytes(mutated_bytes(data, rng))
    elif kind == 4:
        file.write_bytes(rng.choice(list(whole.values())))  # another entry's content, whole in itself
    else:
        file.unlink()
        rng.choice(ODD_ENTRIES)(file)
