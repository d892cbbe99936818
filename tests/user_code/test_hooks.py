"""What the user's code runs without making a module of it counts as if it were one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from soupcli.evaluation.outside import user_function
from soupcli.recipe.sets import PythonSet
from soupcli.user_code.files import named_variables, read_files
from soupcli.user_code.lookups import asked_files, asked_variables

LOADER = """
from importlib.util import module_from_spec, spec_from_file_location

def load(file):
    spec = spec_from_file_location('part', file)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
"""
WAYS = {
    "a loader": f"{LOADER}\ndef read():\n    return load('pa' + 'rt.py').read()",
    "a loader, once": f"{LOADER}\nPART = load('pa' + 'rt.py')\n\ndef read():\n    return PART.read()",
    "a loader of a loader": f"{LOADER}\ndef read():\n    return load('be' + 'tween.py').read()",
    "runpy": "import runpy\n\ndef read():\n    return runpy.run_path('pa' + 'rt.py')['read']()",
    "exec": "from pathlib import Path\n\ndef read():\n    found = {}\n"
    "    exec(compile(Path('pa' + 'rt.py').read_text(), 'part.py', 'exec'), found)\n"
    "    return found['read']()",
    "an import that is forgotten": "import os, sys\nsys.path.insert(0, os.path.dirname(__file__))\n"
    "import part\ndel sys.modules['part']\n\n"
    "def read():\n    return part.read()",
}
PART = """
import os
from pathlib import Path
from concurrent.futures import ThreadPoolExecutor

POOL = ThreadPoolExecutor(1)

def number():
    return float(Path('num' + 'ber.txt').read_text())

def read():
    os.path.exists('more' + '.txt'), os.environ.get('OF_' + 'THE_PART'), 'NAMED_THERE'
    return {'accuracy': POOL.submit(number).result() if THREAD else number(), 'n': 1}
"""


@pytest.mark.parametrize("thread", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_code_that_is_no_module(way: str, thread: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file counts, what it opens also in a thread, what it asks for, and the words in it; bytecode is not used."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("my_eval.py").write_text(f"{WAYS[way]}\n\ndef evaluate(model, device):\n    return read()\n")
    Path("between.py").write_text(WAYS["a loader"])
    Path("part.py").write_text(PART.replace("THREAD", str(thread)))
    Path("number.txt").write_text("0.25")
    for _ in range(2):  # the second time Python has bytecode
        spec = PythonSet(python="my_eval.py:evaluate")
        assert user_function.score(spec, nn.Linear(2, 3), torch.device("cpu"), metric="accuracy").value == 0.25
    here = tmp_path.resolve()
    assert {here / "my_eval.py", here / "part.py", here / "number.txt"} <= read_files().keys()
    assert here / "more.txt" in asked_files()
    assert "OF_THE_PART" in asked_variables()
    assert "NAMED_THERE" in named_variables()
