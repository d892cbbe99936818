"""Lists of classes that strangers have written: each costs little, and none ends the command."""

from __future__ import annotations

import gzip
import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import save_file

from soupcli.checkpoints.compare import class_files, documents
from soupcli.checkpoints.compare.class_files import files_of
from soupcli.checkpoints.compare.class_orders import class_orders, shared_lists
from soupcli.checkpoints.compare.documents import document_of
from soupcli.checkpoints.compare.meanings import check_meanings
from soupcli.checkpoints.formats import name_lists, numpy_names
from soupcli.checkpoints.formats.class_lists import named_rows, other_lists
from soupcli.checkpoints.open import open_checkpoint
from soupcli.checkpoints.tensor_filter import TensorFilter
from soupcli.errors import MixError

CALLS = b"\x80\x02(ca\nb\n" + b")R2" * 60_000 + b"l."  # each the result of calling the one before
JOBLIB = b"\x80\x02cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81}("
NPY = b"\x93NUMPY\1\0\x76\0"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def wrapper(shape: bytes, kind: str = "U3") -> bytes:
    """A pickle of joblib that says of which shape the array is that follows."""
    dtype = text("dtype") + b"cnumpy\ndtype\n" + text(kind) + b"\x85R"
    return JOBLIB + dtype + text("shape") + shape + b"ub."


def in_itself(levels: int, width: int) -> list[object]:
    """A list of lists, of which each holds the one before many times."""
    found: list[object] = ["a", "b"]
    for _ in range(levels):
        found = [found] * width
    return found


BROKEN = {
    "many times in itself.pkl": pickle.dumps(in_itself(5, 1000)),
    "chain of calls.pkl": CALLS,
    "a text for a length.joblib": wrapper(b"(" + text("x" * 300) + b"t", "U999999"),
    "a number for a length.joblib": wrapper(b"(G\x7f\xf0\0\0\0\0\0\0t"),
    "many lengths.joblib": wrapper(b"(" + b"\x8a\x08" * 30_000 + b"t"),
    "labels, magic alone.npy": NPY[:6],
    "labels, no header.npy": NPY + b"{" * 100_000,
    "newlines.md": b"---" + b"\n" * 190_000,
    "parts of a key.toml": b"a." * 90_000 + b"a = 1",
    "parts of a table.toml": b"[" + b"a." * 90_000 + b"a]",
    "marks_labels.txt": (b";" * 300_000 + b"\n") * 2,
    "columns_labels.txt": b",".join(b"c%d" % at for at in range(300_000)),
    "lines_labels.txt": b"a\n" * 900_000,
    "items_label_map.pbtxt": b"{}" * 900_000,
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken(tmp_path: Path, name: str) -> None:
    """What no library writes is no list of classes, and is found to be none in a moment."""
    (tmp_path / name).write_bytes(BROKEN[name])
    assert not named_rows(document_of(tmp_path / name))


def test_aliases(tmp_path: Path) -> None:
    """A list to which thousands of keys point is not looked at for each of them."""
    names = ",".join(f"a{at}" for at in range(3500))
    keys = ",".join(f"k{at}: *l" for at in range(1000))
    (tmp_path / "args.yaml").write_text(
        f"l: &l [{names}]\nm: &m {{{keys}}}\n" + "".join(f"n{at}: *m\n" for at in range(999))
    )
    assert 1 <= len(other_lists(document_of(tmp_path / "args.yaml"))) < 100


def test_long_joblib(tmp_path: Path) -> None:
    """The names of an array count though they take more than the longest text of a checkpoint's pickle."""
    names = [f"{at} " + "x" * 90 for at in range(300)]
    data = b"".join(name.ljust(100, "\0").encode("utf-32-le") for name in names)
    (tmp_path / "labels.joblib").write_bytes(
        wrapper(b"M" + struct.pack("<H", len(names)) + b"\x85", "U100")[:-1] + data + b"."
    )
    assert document_of(tmp_path / "labels.joblib") == names


@pytest.mark.parametrize(
    ("content", "names"),
    [("cat: 0\ndog 1\n", ["cat", "dog"]), ("a 1 0\nb=,;1", ["a 1", "b"]), ("a,b", ["a", "b"])],
)
def test_numbers_behind(tmp_path: Path, content: str, names: list[str]) -> None:
    """A name reaches to the marks before the last number."""
    (tmp_path / "labels.txt").write_text(content)
    assert document_of(tmp_path / "labels.txt") == names


def saved(folder: Path, *, rows: int = 2) -> Path:
    folder.mkdir()
    save_file({"fc.weight": torch.ones(rows, 3)}, folder / "model.safetensors")
    return folder


def test_links(tmp_path: Path) -> None:
    """A link that leads out of the folder is not followed: messages would show what it leads to."""
    folder = saved(tmp_path / "run")
    (tmp_path / "secret").write_text("key\nof mine\n")
    (folder / "labels.txt").symlink_to(tmp_path / "secret")
    (folder / "classes.txt").write_text("cat\ndog\n")
    (tmp_path / "config.yaml").write_text("classes: [key, of mine]\n")
    (folder / ".hydra").symlink_to(tmp_path)
    assert class_orders(open_checkpoint(folder)) == {"classes.txt": ["cat", "dog"]}


def test_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many files beside the weights those count that are called lists of classes."""
    monkeypatch.setattr(class_files, "MOST_FILES", 2)
    folder = saved(tmp_path / "run")
    for name in ("a.json", "b.json", "c.json", "labels.json"):
        (folder / name).write_text("{}")
    assert list(files_of(open_checkpoint(folder))) == ["a.json", "labels.json"]


def test_large_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration that is too large to be read is named, unless both are the same."""
    monkeypatch.setattr(documents, "MAX_BYTES", 60)
    one, two, same = (open_checkpoint(saved(tmp_path / name)) for name in ("one", "two", "same"))
    for checkpoint, first, second in ((one, "cat", "dog"), (two, "dog", "cat"), (same, "cat", "dog")):
        (checkpoint.path / "config.json").write_text(
            f'{{"x": "{"y" * 60}", "id2label": {{"0": "{first}", "1": "{second}"}}}}'
        )
    one, two, same = (open_checkpoint(each.path) for each in (one, two, same))
    said = f"classes of {one.path} and {two.path} are not compared"
    assert check_meanings([one, two, same], TensorFilter()) == [
        f"{two.path}/config.json: has more than 60 bytes: {said}"
    ]
    assert not list(shared_lists(one, two))


@pytest.mark.parametrize(
    "name", ["labels.txt", "data.yaml", "label_map.pbtxt", "map.pbtxt", "config.json", "classes.jsonl", "labels.jsonl"]
)
def test_too_many_entries_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A file with more entries than are compared is named, whatever its form; a smaller one is compared."""
    folders = [saved(tmp_path / str(at), rows=3) for at in range(2)]
    for folder, names in zip(folders, (["cat", "dog", "cow"], ["dog", "cat", "cow"]), strict=True):
        (folder / name).write_text(written_as(name, names))
    with pytest.raises(MixError, match="cat, dog, cow"):
        check_meanings([open_checkpoint(folder) for folder in folders], TensorFilter())
    for module in (class_files, name_lists):
        monkeypatch.setattr(module, "MOST", 1)
    [note] = check_meanings([open_checkpoint(folder) for folder in folders], TensorFilter())
    assert note.startswith(f"{tmp_path}/1/{name}: has more than 1 entries: classes of")


def test_labels_of_examples(tmp_path: Path) -> None:
    """A list with most names several times is one of examples, which need not be the same beside two runs."""
    a, b = (saved(tmp_path / one, rows=3) for one in "ab")
    for folder, labels in ((a, ["cat", "dog", "cow"] * 5), (b, ["cow", "dog", "cat"] * 5)):
        np.save(folder / "labels.npy", np.array(labels))
        np.savez(folder / "labels.npz", labels=np.array(labels))
    assert check_meanings([open_checkpoint(a), open_checkpoint(b)], TensorFilter()) == []


def parquet(file: Path, **columns: object) -> None:
    pyarrow.parquet.write_table(pyarrow.table(columns), file)


TABLES: dict[str, Callable[[Path, list[str]], object]] = {
    "labels.parquet": lambda file, names: parquet(file, id=[*range(len(names))], name=names),
    "classes.parquet": lambda file, names: parquet(file, class_name=names),
    "classes.npz": lambda file, names: np.savez_compressed(file, classes=np.array(names), counts=np.ones(3)),
    "assets/class_names.npz": lambda file, names: np.savez(file, np.array(names)),
    "label_map.xml": lambda file, names: file.write_text(f"<map>{''.join(f'<c>{one}</c>' for one in names)}</map>"),
    "annotations.xml": lambda file, names: file.write_text(
        f"<annotations><meta><task><labels>{''.join(f'<label><name>{one}</name></label>' for one in names)}"
        "</labels></task></meta></annotations>"
    ),
    "classes.xml": lambda file, names: file.write_text(
        f"<classes>{''.join(f'<class><![CDATA[{one}]]></class>' for one in names)}</classes>"
    ),
    "labels.properties": lambda file, names: file.write_text("".join(f"{at}={one}\n" for at, one in enumerate(names))),
    "labels.env": lambda file, names: file.write_text(f"RUN={file.parent.name}\nCLASSES={','.join(names)}\n"),
    "classes.json.gz": lambda file, names: file.write_bytes(
        gzip.compress(json.dumps(names).encode(), mtime=len(file.name))
    ),
    "args.txt": lambda file, names: file.write_text(f"lr: {file.parent.name}\nclasses: {names}\n"),
    "exp.py": lambda file, names: file.write_text(
        f"class Exp:\n    def __init__(self):\n        self.run = '{file.parent}'\n        self.class_names = {names}\n"
    ),
    "categories_places365.txt": lambda file, names: file.write_text(
        "".join(f"/{one[0]}/{one} {row}\n" for row, one in enumerate(names))
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables(tmp_path: Path, name: str) -> None:
    """Parquet, archives of numpy, XML and the lines of Places365 are lists of classes."""
    a, b, same = (saved(tmp_path / one, rows=3) for one in ("a", "b", "same"))
    for folder, names in ((a, ["cat", "dog", "cow"]), (b, ["dog", "cat", "cow"]), (same, ["cat", "dog", "cow"])):
        (folder / name).parent.mkdir(exist_ok=True)
        TABLES[name](folder / name, names)
    with pytest.raises(MixError, match="stand for other classes"):
        check_meanings([open_checkpoint(a), open_checkpoint(b)], TensorFilter())
    assert check_meanings([open_checkpoint(a), open_checkpoint(same)], TensorFilter()) == []


def test_tables_that_unpack_to_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays and columns of a small file are read up to a bound for all of them together."""
    names = ["cat", "dog", "cow"]
    np.savez_compressed(
        tmp_path / "classes.npz", first=np.array(["x" * 9_000] * 2), classes=np.array(["y" * 9_000] * 2)
    )
    monkeypatch.setattr(numpy_names, "TIMES", 80_000 / (tmp_path / "classes.npz").stat().st_size)
    parquet(tmp_path / "classes.parquet", id=[0, 1, 2], name=names)
    assert [*document_of(tmp_path / "classes.npz")] == ["first"]
    assert document_of(tmp_path / "classes.parquet") == names
    monkeypatch.setattr(documents, "MOST_VALUES", 5)
    parquet(tmp_path / "labels.parquet", id=[0, 1, 2], name=names)
    assert document_of(tmp_path / "labels.parquet") is None


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("class_names.xlsx", "is .xlsx, which is not read"),
        ("label_map.h5", "is .h5, which is not read"),
        ("labels.h", "is .h, which is not read"),
        ("imagenet_classes.js", "is .js, which is not read"),
        ("class_names.bson", "is .bson, which is not read"),
        ("classes.parquet", "is read with pyarrow, which is not installed"),
    ],
)
def test_forms_that_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, why: str) -> None:
    """A list of classes in a form that is not read is named if it differs; labels of examples are none."""
    monkeypatch.setattr(class_files, "find_spec", lambda _: None)
    a, b, same = (saved(tmp_path / one, rows=3) for one in ("a", "b", "same"))
    for folder, content in ((a, b"1"), (b, b"2"), (same, b"1")):
        (folder / name).write_bytes(content)
        (folder / "labels.h5").write_bytes(folder.name.encode())
        for shown in ("labels.png", "classes.html", "classes.log"):
            (folder / shown).write_bytes(folder.name.encode())
    [note] = check_meanings([open_checkpoint(a), open_checkpoint(b)], TensorFilter())
    assert note.startswith(f"{b}/{name}: {why}: classes of {a} and {b} are not compared")
    assert check_meanings([open_checkpoint(a), open_checkpoint(same)], TensorFilter()) == []


def written_as(name: str, names: list[str]) -> str:
    if name.endswith("json"):
        return json.dumps({"id2label": dict(enumerate(names))})
    if name.endswith("yaml"):
        return "names:\n" + "".join(f"- {one}\n" for one in names)
    if name == "classes.jsonl":
        return "".join(f"{json.dumps(one)}\n" for one in names)
    if name == "labels.jsonl":
        return "".join(f"{json.dumps({'id': row, 'name': one})}\n" for row, one in enumerate(names))
    if name.endswith("pbtxt"):
        return "".join(f'item {{\n id: {row}\n name: "{one}"\n}}\n' for row, one in enumerate(names, 1))
    return "\n".join(names) + "\n"


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-16-le", "gbk"])
@pytest.mark.parametrize("name", ["labels.txt", "data.yaml", "id2label.json"])
def test_encodings(tmp_path: Path, name: str, encoding: str) -> None:
    """A list of classes is read in whatever encoding an editor or a shell wrote it."""
    names = ["cat", "\u00fcn", "\u00e9lan"]
    for folder, order in (("one", names), ("two", [names[1], names[0], names[2]])):
        (saved(tmp_path / folder, rows=3) / name).write_bytes(written_as(name, order).encode(encoding))
    with pytest.raises(MixError, match="stand for other classes"):
        check_meanings([open_checkpoint(tmp_path / each) for each in ("one", "two")], TensorFilter())


@pytest.mark.parametrize("name", ["labels.txt", "data.yaml", "map.pbtxt"])
def test_long_lists(tmp_path: Path, name: str) -> None:
    """Two names of six thousand that stand in each other's place: the message shows where, with the rows' numbers."""
    names = [f"a class with the number {row}" for row in range(6_000)]
    moved = [*names[:4_000], names[4_001], names[4_000], *names[4_002:]]
    for folder, order in (("one", names), ("two", moved)):
        (saved(tmp_path / folder, rows=6_000) / name).write_text(written_as(name, order))
    with pytest.raises(MixError) as caught:
        check_meanings([open_checkpoint(tmp_path / each) for each in ("one", "two")], TensorFilter())
    said = [f"..., 4000: a class with the number {4000 + at}, 4001: " for at in (1, 0)]
    assert all(one in str(caught.value) for one in said)


def noted_folders(monkeypatch: pytest.MonkeyPatch, by: str = "_entries") -> list[Path]:
    """The folders whose entries are listed from here on `by` a function, as they are."""
    looked: list[Path] = []
    entries = getattr(class_files, by)

    def listed(folder: Path, *most: int) -> list[Path]:
        looked.append(folder)
        found: list[Path] = entries(folder, *most)
        return found

    monkeypatch.setattr(class_files, by, listed)
    return looked


def test_many_weights_in_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The entries of a folder are put in order once for all files of weights in it, however many there are."""
    asked = noted_folders(monkeypatch)
    for number in range(5):
        torch.save({"fc.weight": torch.ones(2, 3)}, tmp_path / f"m{number}.pt")
    (tmp_path / "m3_classes.json").write_text('["cat", "dog"]')
    (tmp_path / "animals.json").write_text('["cat", "dog"]')
    found = {number: list(files_of(open_checkpoint(tmp_path / f"m{number}.pt"))) for number in range(5)}
    assert found == {0: [], 1: [], 2: [], 3: ["*_classes.json"], 4: []}
    assert asked == [tmp_path]


def test_lists_in_one_folder(tmp_path: Path) -> None:
    """Of files in one folder each has the list that begins with its name; a list without a name is of all."""
    for name in ("c", "model", "model_best"):
        torch.save({"fc.weight": torch.ones(2, 3)}, tmp_path / f"{name}.pt")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    (tmp_path / "model_best_classes.txt").write_text("dog\ncat\n")
    of_all = {"classes.txt": ["cat", "dog"]}
    assert class_orders(open_checkpoint(tmp_path / "c.pt")) == of_all
    assert class_orders(open_checkpoint(tmp_path / "model.pt")) == of_all
    best = class_orders(open_checkpoint(tmp_path / "model_best.pt"))
    assert best == {"*_classes.txt": ["dog", "cat"], **of_all}


def test_very_many_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of folders below, as many are looked into as entries are read: empty ones count, too."""
    save_file({"w": torch.ones(2)}, tmp_path / "model.safetensors")
    for number in range(30):
        (tmp_path / f"part{number:02}").mkdir()
    (tmp_path / "part00/classes.txt").write_text("a\nb\n")
    looked = noted_folders(monkeypatch, "_first_entries")
    monkeypatch.setattr(class_files, "MOST_BELOW", 10)
    found = class_files.files_of(open_checkpoint(tmp_path))
    assert "part00/classes.txt" in found and 5 < len(looked) <= 10


@pytest.mark.parametrize(
    ("file", "above"),
    [
        ("model_params.json", ("class_attrs", "preds_mapper")),
        ("configs/metadata.json", ("network_data_format", "outputs", "pred", "channel_def")),
    ],
)
def test_libraries(tmp_path: Path, file: str, above: tuple[str, ...]) -> None:
    """pytorch-tabnet and MONAI's bundles say under keys of their own what two outputs are, written here by hand."""
    for run, names in enumerate((["x", "y"], ["y", "x"])):
        weights = tmp_path / str(run) / "models/network.pt"
        weights.parent.mkdir(parents=True)
        torch.save(torch.nn.Linear(3, 2).state_dict(), weights)
        document: object = dict(zip("01", names, strict=True))
        for key in reversed(above):
            document = {key: document}
        (weights.parents[1] / file).parent.mkdir(exist_ok=True)
        (weights.parents[1] / file).write_text(json.dumps(document))
    with pytest.raises(MixError, match=f"{above[-1]} lists y, x, that of .* lists x, y: rows of 'weight' stand for"):
        check_meanings([open_checkpoint(tmp_path / str(run) / "models") for run in range(2)], TensorFilter())


@pytest.mark.parametrize("protocol", [2, 4])
def test_dictionaries_of_flair(tmp_path: Path, protocol: int) -> None:
    """flair's Dictionary, beside the state dict in final-model.pt, lists labels as bytes; it is imitated here."""
    for run, labels in enumerate(([b"<unk>", b"POS", b"NEG"], [b"<unk>", b"NEG", b"POS"])):
        held = {"idx2item": labels, "item2idx": {label: at for at, label in enumerate(labels)}}
        saved = {"state_dict": torch.nn.Linear(4, 3).state_dict(), "label_dictionary": held}
        torch.save(saved, tmp_path / f"{run}.pt", pickle_protocol=protocol)
    with pytest.raises(MixError, match=r"label_dictionary\.idx2item lists <unk>, NEG, POS"):
        check_meanings([open_checkpoint(tmp_path / f"{run}.pt") for run in range(2)], TensorFilter())


def test_label_encoders_of_speechbrain(tmp_path: Path) -> None:
    """speechbrain's label encoders are texts that end in .ckpt, as its networks do; written here by hand."""
    for run, labels in enumerate(("ab", "ba")):
        (tmp_path / str(run)).mkdir()
        torch.save(torch.nn.Linear(4, 2).state_dict(), tmp_path / str(run) / "classifier.ckpt")
        (tmp_path / str(run) / "CKPT.yaml").write_text("end-of-epoch: true\n")
        lines = "".join(f"'{label}' => {at}\n" for at, label in enumerate(labels))
        (tmp_path / str(run) / "label_encoder.ckpt").write_text(f"{lines}================\n'starting_index' => 0\n")
    with pytest.raises(MixError, match="its classes are 'b', 'a', those of "):
        check_meanings([open_checkpoint(tmp_path / str(run)) for run in range(2)], TensorFilter())


def test_a_data_set_beside_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of very many class folders beside the weights is listed once, whichever checkpoints ask."""
    for name in ("a", "b"):
        save_file({"w": torch.ones(1)}, tmp_path / f"{name}.safetensors")
    for number in range(9):
        (tmp_path / "flowers" / f"{number}").mkdir(parents=True)
    listed: list[str] = []
    names_in = class_files._names_in

    def noted(folder: Path) -> list[str]:
        listed.append(folder.name)
        return names_in(folder)

    monkeypatch.setattr(class_files, "_names_in", noted)
    for name in ("a", "b", "a"):
        assert files_of(open_checkpoint(tmp_path / f"{name}.safetensors")) == {}
    assert listed.count("flowers") == 1
