"""Task files of strangers for lm-evaluation-harness: none of what they name runs unless the user trusts them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from soupcli.errors import ValidationError
from soupcli.evaluation.outside import lm_eval as lm_eval_task
from soupcli.evaluation.outside.harness_code import refuse_code
from soupcli.recipe.sets import LmEvalSet

HARNESS = pytest.importorskip("lm_eval")

TASK = """task: one
dataset_path: json
dataset_kwargs: {{data_files: {{validation: {data}}}}}
validation_split: validation
output_type: multiple_choice
doc_to_text: "{text}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list: [{{metric: acc}}]
"""
CODE = "open('ran', 'w').close()\n\ndef f(doc):\n    return doc\n"


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a task, and Python beside it that leaves a file if it runs."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "evil.py").write_text(CODE)
    data = folder / "one.jsonl"
    data.write_text(json.dumps({"question": "a", "choices": ["a", "b"], "answer": 0}) + "\n")
    (folder / "one.yaml").write_text(TASK.format(data=data, text="{{question}}"))
    return folder


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        ("process_docs: !function evil.f", "10: process_docs: !function evil.f: Python that it names would run"),
        ("doc_to_text: !function os.system", "10: doc_to_text: !function os.system: Python that"),
        ("x: [1, {y: !!python/name:os.system a}]", "python/name:os.system a: Python that"),
        ("class: evil.Task", "10: class: evil.Task: asks for code"),
        ("dataset_kwargs: {trust_remote_code: true}", "10: trust_remote_code: true: asks for code"),
        ("metric_list: [{metric: acc, hf_evaluate: yes}]", "10: hf_evaluate: yes: asks for code"),
        ("metric_list: [{metric: ./evil.py}]", "10: metric: ./evil.py: is a script"),
        ("dataset_path: tasks/evil.py", "10: dataset_path: tasks/evil.py: is a script"),
        ("include: ../outside.yaml", "outside.yaml:1: process_docs: !function evil.f"),
        ("a: [", "one.yaml: cannot be read as a task file"),
    ],
)
def test_refused(tasks: Path, lines: str, what: str) -> None:
    """What would run is named with its file and line, and nothing of it runs."""
    (tasks.parent / "outside.yaml").write_text("process_docs: !function evil.f\n")
    with (tasks / "one.yaml").open("a") as file:
        file.write(lines + "\n")
    with pytest.raises(ValidationError) as caught:
        lm_eval_task.load(LmEvalSet(lm_eval=["one"], include_path=tasks))
    assert what in str(caught.value)
    assert not Path("ran").exists()


def test_trusted(tasks: Path) -> None:
    """With the user's word the harness imports what the file names."""
    with (tasks / "one.yaml").open("a") as file:
        file.write("process_docs: !function evil.f\n")
    lm_eval_task.load(LmEvalSet(lm_eval=["one"], include_path=tasks), trust_code=True)
    assert Path("ran").exists()


def test_templates_are_shut_in(tasks: Path) -> None:
    """A template that reaches for what Python holds is an error; the harness's own environment stays as it was."""
    utils = pytest.importorskip("lm_eval.utils")
    before = utils.env
    text = "{{ cycler.__init__.__globals__.os.mkdir('ran') }}"
    (tasks / "one.yaml").write_text(TASK.format(data=tasks / "one.jsonl", text=text))
    with pytest.raises(ValidationError, match="SecurityError: access to attribute '__"):
        lm_eval_task.load(LmEvalSet(lm_eval=["one"], include_path=tasks))
    assert not Path("ran").exists() and utils.env is before


def test_plain_tasks(tasks: Path) -> None:
    """Tasks that are data alone, also with files of the harness included, need nobody's trust."""
    installed = Path(HARNESS.__file__).parent / "tasks"
    with_code = next(file for file in installed.rglob("*.yaml") if "!function" in file.read_text())
    (tasks / "two.yaml").write_text(f"include: {with_code}\ntask: two\n")
    refuse_code(tasks)
    assert lm_eval_task.load(LmEvalSet(lm_eval=["one"], include_path=tasks)).loaded["tasks"]
