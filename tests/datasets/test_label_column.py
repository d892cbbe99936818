"""A table with the class of each picture: names or numbers, with a header or not; what can be read two ways fails."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from soupcli.datasets.images import class_order, find
from soupcli.errors import ValidationError
from soupcli.networks.network import UNNAMED, Outline
from soupcli.recipe.sets import ImagesSet

NAMED = Outline(label_names=("Dog", "cat", "sea lion"))


def of_table(folder: Path, text: str, **keys: object) -> ImagesSet:
    """Three pictures and a csv file."""
    (folder / "val").mkdir()
    for name in ("a", "b", "c"):
        Image.new("RGB", (4, 4)).save(folder / "val" / f"{name}.png")
    (folder / "val.csv").write_text(text)
    return ImagesSet(images=folder / "val", labels=folder / "val.csv", **keys)  # type: ignore[arg-type]


@pytest.mark.parametrize("header", ["file,label\n", "file,species\n", ""])
def test_names_go_by_the_network(header: str, tmp_path: Path) -> None:
    """In any order of the file, with or without a header; the labels are those of class folders of these names."""
    found = find(
        of_table(tmp_path, header + "c.png, sea_lion\na.png,dog\nb,cat\n".replace("b,", "b.png,")), outline=NAMED
    )
    assert [picture.path.stem for picture in found.pictures] == ["a", "b", "c"]
    assert found.labels.tolist() == [0, 1, 2]


def test_numbers_are_logits(tmp_path: Path) -> None:
    """Also 0 and 1 alone, in a column called label; a part of the pictures is a set, with a warning."""
    spec = of_table(tmp_path, "file,label\nc.png,1\na.png,0\n")
    assert find(spec, outline=NAMED).labels.tolist() == [0, 1]
    order = class_order(spec, UNNAMED)
    assert order.by == "numbers in val.csv"
    assert order.warning == "1 of 3 pictures (b.png) have no row in val.csv: they take no part"
    assert find(ImagesSet(images=spec.images, labels=spec.labels, label=["label"])).labels.tolist() == [[0], [1]]


def test_rows_without_pictures(tmp_path: Path) -> None:
    """Rows for pictures that are not there are counted and named: a set that has lost some is not scored in silence."""
    rows = "".join(f"{name}.png,1\n" for name in "abcdefg")
    spec = of_table(tmp_path, f"file,label\n{rows}")
    assert class_order(spec, UNNAMED).warning == (
        f"4 of 7 rows of val.csv (d.png, e.png, f.png, ...) have no picture in {spec.images}: they take no part"
    )


@pytest.mark.parametrize("start", ["./", ".\\", "val/", "val\\", "../val/../val/"])
def test_paths_as_other_programs_write_them(start: str, tmp_path: Path) -> None:
    """Names may begin at the set or at the table, with the backslashes of Windows; other ways are errors."""
    spec = of_table(tmp_path, f"file,label\n{start}c.png,1\n{start}a.png,0\n{start}b.png,2\n")
    if ".." in start:
        with pytest.raises(ValidationError, match="no row whose column"):
            find(spec)
    else:
        assert find(spec).labels.tolist() == [0, 2, 1]


@pytest.mark.parametrize("twin", ["sub/a.png", "a.jpg"])
def test_one_row_for_two_pictures(twin: str, tmp_path: Path) -> None:
    """A name that two pictures have says the label of neither; their paths do."""
    spec = of_table(tmp_path, f"file,label\n{'a' if twin == 'a.jpg' else 'a.png'},1\nb.png,0\nc.png,0\n")
    (tmp_path / "val/sub").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "val" / twin)
    with pytest.raises(ValidationError, match=r"val\.csv: row 1 may be of 'a\.(png|jpg)' or of"):
        find(spec)
    (tmp_path / "val.csv").write_text(f"file,label\na.png,1\n{twin},2\nb.png,0\nc.png,0\n")
    assert sorted(find(spec).labels.tolist()) == [0, 0, 1, 2]


def test_the_recipe_says_the_order(tmp_path: Path) -> None:
    """class_order: and class_to_index: for networks that do not name their classes; a column of several by name."""
    text = "file,split,kind\na.png,val,x10\nb.png,val,x2\nc.png,val,x2\n"
    spec = of_table(tmp_path, text, label=["kind"], class_order="natural")
    assert find(spec).labels.tolist() == [1, 0, 0]
    by_map = ImagesSet(images=spec.images, labels=spec.labels, label=["kind"], class_to_index={"x10": 4, "x2": 7})
    assert find(by_map).labels.tolist() == [4, 7, 7]


@pytest.mark.parametrize(
    ("text", "outline", "problem"),
    [
        (
            "f,label\na.png,cat\nb.png,dog\nc.png,cat\n",
            UNNAMED,
            r"val\.csv: labels are the names cat, dog, and the net",
        ),
        ("f,label\na.png,cat\nb.png,0\nc.png,1\n", UNNAMED, r"row 2: label '0' is a number, row 1: 'cat' a name"),
        ("f,label\na.png,cat\nb.png,\nc.png,cat\n", NAMED, "row 2: label is '', neither the name of a class nor"),
        ("f,label\na.png,1\nb.png,2\nc.png,1\n", Outline(label_names=("1", "2", "3")), "1, 2 may be class numbers, or"),
        ("f,label\na.png,cta\nb.png,dog\nc.png,dog\n", NAMED, "'cta' is no class of the network, did you mean 'cat'"),
    ],
)
def test_labels_without_a_meaning(text: str, outline: Outline, problem: str, tmp_path: Path) -> None:
    """No order is guessed for names that the network lacks, nor a reading for numbers that are names as well."""
    with pytest.raises(ValidationError, match=problem):
        find(of_table(tmp_path, text), outline=outline)
