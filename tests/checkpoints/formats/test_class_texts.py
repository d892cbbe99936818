"""Lists of classes in texts, in the forms in which people keep them."""

import pytest

from soupcli.checkpoints.formats.class_lists import named_rows
from soupcli.checkpoints.formats.class_texts import rows_of_text

NAMES = ["dog", "cat", "ant", "bee"]


@pytest.mark.parametrize(
    "text",
    [
        "1 dog\n2 cat\n3 ant\n4 bee\n",
        "0 dog\n1 cat\n2 ant\n3 bee\n",
        "1|cat\n0|dog\n2|ant\n3|bee\n",
        "{0: 'dog',\n 1: 'cat',\n 2: 'ant',\n 3: 'bee'}",
        "['dog', 'cat', 'ant', 'bee']\n",
        "{'bee': 3, 'ant': 2, 'cat': 1, 'dog': 0}",
    ],
    ids=["from 1", "from 0", "after marks", "a dict of Python", "a list of Python", "a dict from names"],
)
def test_numbers_and_literals(text: str) -> None:
    """The numbers give the order, from 0 or from 1 (UCF101's classInd.txt); a literal of Python is read as such."""
    assert rows_of_text(text) == NAMES


def test_vocabularies_are_no_literals() -> None:
    """Tokens in brackets at both ends of a text are lines, and a number that one line lacks drops no line."""
    assert rows_of_text("[PAD]\na\n[MASK]\n") == ["[PAD]", "a", "[MASK]"]
    assert rows_of_text("background\n1 dog\n2 cat\n") == ["background", "1 dog", "2 cat"]


@pytest.mark.parametrize(("number", "name"), [("id", "name"), ("index", "label"), ("class_id", "class_name")])
@pytest.mark.parametrize("first", [0, 1])
def test_objects_in_any_order(number: str, name: str, first: int) -> None:
    """Of objects with a number and a name the numbers count, not the order in the file."""
    objects = [{name: each, number: row} for row, each in enumerate(NAMES, first)]
    assert named_rows({"classes": objects[::-1]}) == {"classes": NAMES}
    gaps = [{**each, number: 10 * row} for row, each in enumerate(objects)]
    assert named_rows({"classes": gaps}) == {"classes": NAMES}
    assert not named_rows({"classes": gaps[::-1]})


def test_names_between_commas() -> None:
    """A text under the key of a list is one, as arguments of a command line are kept."""
    assert named_rows({"args": {"labels": "dog, cat,ant,bee"}}) == {"args.labels": NAMES}
    assert not named_rows({"args": {"comment": "dog, cat"}})


@pytest.mark.parametrize(
    "text",
    [
        "/d/dog 0\n/c/cat 1\n/a/ant 2\n/b/bee 3\n",
        "dog 0 31\ncat 1 7\nant 2 12\nbee 3 2\n",
        "cat\t1\ta pet\ndog\t0\ta pet too\nant\t2\tsix legs\nbee\t3\tsix legs\n",
        "1 cat 31\n0 dog 7\n2 ant 12\n3 bee 2\n",
        "# of run 3\n# id name\n1 cat\n0 dog\n2 ant\n3 bee\n",
        "dog: 31\ncat: 7\nant: 12\nbee: 2\n",
        "  31 dog\n   7 cat\n  12 ant\n   2 bee\n",
    ],
)
def test_more_than_names(text: str) -> None:
    """Counts and descriptions behind a name, or before it, are no part of it."""
    assert [name.rpartition("/")[2] for name in rows_of_text(text) or ()] == NAMES


@pytest.mark.parametrize(
    "text",
    [
        "dog;cat;ant;bee;\n",
        "filename, dog, cat, ant, bee\na.jpg, 1, 0, 0, 1\nb.jpg, 0, 1, 1, 0\n",
        "name,r,g,b\ndog,9,0,0\ncat,0,9,0\nant,0,0,9\nbee,9,9,0\n",
    ],
    ids=["TAO", "Roboflow's _classes.csv", "CamVid's class_dict.csv"],
)
def test_tables_of_tools(text: str) -> None:
    """One line with a mark behind each name, a column for each class, and colors are no counts."""
    assert rows_of_text(text) == NAMES


def test_sorted_by_counts() -> None:
    """Names that their counts sort say nothing by their order; a year in a name is a part of it."""
    assert rows_of_text("dog 31\ncat 12\nant 7\n") is None
    cars = ["Audi TT Coupe 2012", "Audi TT Coupe 2011", "Acura TL Sedan 2012"]
    assert rows_of_text("\n".join(cars)) == cars
