"""docs/soup.ipynb runs from top to bottom in a kernel of Jupyter, draws its bars, and shows tables and figures."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.long
@pytest.mark.filterwarnings("default")
def test_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cell fails; the soup is shown as its table and figure, progress as a bar, and the folder is there."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook: Any = nbformat.read(ROOT / "docs/soup.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "outputs are made by whoever runs it"
    client = nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}})
    asyncio.run(client.async_execute())
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = [output["data"] for output in outputs if "data" in output]
    assert any("application/vnd.jupyter.widget-view+json" in data for data in shown)
    pages = [data["text/html"] for data in shown if "soup-result" in data.get("text/html", "")]
    assert len(pages) == 2 and all("<table" in page for page in pages) and "<svg" in pages[0]
    assert "Warning: " in pages[0]
    assert (tmp_path / "soup/model.safetensors").is_file()
