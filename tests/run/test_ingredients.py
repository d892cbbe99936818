"""The ingredients of a run: what is said where something that they name is not found."""

from __future__ import annotations

from pathlib import Path

import pytest

from soupcli.errors import CheckpointError
from soupcli.run import ingredients


def test_a_base_that_has_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    """A base at a relative path may look like a model of the Hub: the error says who names it, the hint --base."""

    def absent(path: Path, _how: object) -> None:
        raise CheckpointError(f"{path}: no such file or folder, and no such model on the Hub", hint="check the name")

    monkeypatch.setattr(ingredients, "open_checkpoint", absent)
    with pytest.raises(
        CheckpointError, match=r"^out/base: no .*: adapter_config.json names it as the base$"
    ) as refused:
        ingredients._base_on_hub(Path("out/base"), quiet=True)
    assert refused.value.hint == "check the name; or --base FOLDER names it"
