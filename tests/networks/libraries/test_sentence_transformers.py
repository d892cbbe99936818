"""Folders of sentence-transformers: which folders these are, and which are refused before the library is imported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from soupcli.errors import NetworkError
from soupcli.networks.build import spec_of_folder
from soupcli.networks.libraries.sentence_transformers import build
from soupcli.recipe.networks import SentenceTransformersNetwork

SPEC = SentenceTransformersNetwork(sentence_transformers="auto")


@pytest.mark.parametrize(
    ("modules", "said"),
    [
        ([{"path": "", "type": "my_code.Encoder"}], "'my_code.Encoder' asks for code to be run"),
        ([{"path": ""}], "is no list of modules"),
        ({"path": 3}, "is no list of modules"),
    ],
)
def test_refused(modules: object, said: str, tmp_path: Path) -> None:
    """A module of another package is code, which versions before 6 imported unasked; other contents are no list."""
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(NetworkError, match=said):
        build(SPEC, tmp_path)


@pytest.mark.parametrize(("made_as", "embeds"), [(None, True), ("SentenceTransformer", True), ("CrossEncoder", False)])
def test_which_folders(made_as: str | None, embeds: bool, tmp_path: Path) -> None:
    """A reranker of the same library has a classifier, so it stays a network of transformers."""
    (tmp_path / "modules.json").write_text("[]")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    if made_as is not None:
        (tmp_path / "config_sentence_transformers.json").write_text(json.dumps({"model_type": made_as}))
    assert isinstance(spec_of_folder(tmp_path), SentenceTransformersNetwork) == embeds
