"""Texts of settings become maps and lists; what is broken or would take minutes raises ValueError."""

from __future__ import annotations

import pytest

from soupcli.checkpoints.formats.text_documents import (
    of_front_matter,
    of_ini,
    of_mlmodel,
    of_params,
    of_toml,
    of_xml,
    of_yaml,
)


def test_documents() -> None:
    """Each kind, with every scalar as text where the kind has no types."""
    assert of_yaml("names: [cat, 2]") == {"names": ["cat", "2"]}
    assert of_front_matter("---\nlabels: [a]\n---\n# Card") == {"labels": ["a"]}
    assert of_front_matter("# Card") is None
    assert of_toml("[a]\nb = 1") == {"a": {"b": 1}}
    assert of_ini("[model]\nact = relu\nflag\n")["model"] == {"act": "relu", "flag": ""}
    assert of_mlmodel('run_id: a\nsignature:\n  inputs: \'[{"name": "age"}]\'\n  outputs: null\n') == {
        "signature": {"inputs": ["age"]}
    }
    assert of_mlmodel("run_id: a\nmetadata: {names: [a]}\n") == {"signature": {}, "metadata": {"names": ["a"]}}
    assert of_params("model: ViT-B-32\nlr: 0.1\nno setting\n") == {"model": "ViT-B-32", "lr": "0.1"}
    assert of_params("-- Options --\n  lr: 0.1 \t[default: 1]\nseed=2\na == b\n") == {"lr": "0.1", "seed": "2"}
    assert of_params('{"lr": 1}') == {"lr": 1}
    assert of_params("lr: 1\nnames:\n- a\n- b\n") == {"lr": "1", "names": ["a", "b"]}
    assert of_params("Namespace(lr=1, names=['a', 'b'])\n")["args"]["names"] == ["a", "b"]
    assert of_params("names: ['a', 'b']\nrange: [0, inf)\n") == {"names": ["a", "b"], "range": "[0, inf)"}


@pytest.mark.parametrize(
    ("text", "document"),
    [
        ("<?xml version='1.0'?><labels><label>cat</label><label>dog</label></labels>", {"labels": ["cat", "dog"]}),
        ('<m><label id="1">cat</label><lr>2</lr></m>', {"m": {"label": {"id": "1", "name": "cat"}, "lr": "2"}}),
        ('<resources><array name="labels"><item>a</item><item>b</item></array></resources>', {"labels": ["a", "b"]}),
        ('<net name="n"><rt_info><labels value="a b"/></rt_info></net>', {"name": "n", "rt_info": {"labels": "a b"}}),
        ('<a:c xmlns:a="u"><a:d>1</a:d><a:e/></a:c>', {"c": {"d": "1", "e": ""}}),
    ],
)
def test_xml(text: str, document: object) -> None:
    """Elements of one name are a list, others are entries; attributes are too, and a `name` calls a list."""
    found = of_xml(text)
    assert document in (found, *found.values())


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (of_yaml, "a: ["),
        (of_yaml, "[" * 100),
        (of_ini, "act = relu"),
        (of_toml, "a."),
        (of_toml, f"{'a.' * 99}b = 1"),
        (of_mlmodel, "signature: {inputs: '['}"),
        (of_xml, "<a>"),
        (of_xml, "<a>" * 100 + "</a>" * 100),
        (of_xml, '<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><a>&c;</a>'),
    ],
)
def test_broken(read: object, text: str) -> None:
    """Broken and deep texts raise ValueError."""
    assert callable(read)
    with pytest.raises(ValueError, match=r"."):
        read(text)
