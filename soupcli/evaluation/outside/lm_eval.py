"""`{lm_eval: [arc_easy, hellaswag], limit: 200, metric: acc_norm}`: tasks of lm-evaluation-harness, run in process.

The harness uses the network in memory; tasks and their data are loaded once. Seeds are those of its command line, so a
score equals the one that `lm_eval` prints for the saved weights. See docs/interface.md of the harness. Each task or
group of the recipe is evaluated by itself, so that processes can share them and the scores stay the same.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from soupcli import processes
from soupcli.datasets.kind import SetKind
from soupcli.environment import import_extra
from soupcli.errors import NetworkError, ValidationError
from soupcli.evaluation.outside.harness_code import refuse_code, shut_in
from soupcli.evaluation.outside.prints import files_of_depends, print_below
from soupcli.evaluation.score import Score
from soupcli.late import torch
from soupcli.metrics.metric import MetricValue
from soupcli.networks.module_state import restored
from soupcli.wording import suggestion

if TYPE_CHECKING:
    from torch import nn

    from soupcli.evaluation.runner import NetworkRunner
    from soupcli.files.manifest import Manifest
    from soupcli.mixing.mixture import Mixture
    from soupcli.recipe.sets import LmEvalSet

EXTRA = "lm-eval"
SEEDS = {"random": 0, "numpy": 1234, "torch": 1234, "fewshot": 1234}  # simple_evaluate's own
RESULTS = ("results", "n-samples", "higher_is_better", "group_subtasks")  # what is used of the harness's
CLOSED_FORM = ("mean", "acc_all")  # aggregations whose standard error the harness gives without a bootstrap


@dataclass(frozen=True, eq=False)
class Tasks:
    """Tasks of the harness and their data, by the recipe's names."""

    spec: LmEvalSet
    loaded: Mapping[str, Any]
    units: Sequence[Mapping[str, Any]]
    """The same, by what the recipe names."""
    trust_code: bool = False

    @cached_property  # asked for again with every score
    def fingerprint(self) -> str:
        """Return the fingerprint of every task's configuration and documents."""
        digest = hashlib.sha256()
        for _, task in sorted(self.loaded["tasks"].items()):
            shots = list(task.fewshot_docs() or ()) if task.get_config("num_fewshot") else []
            for part in (task.dump_config(), *list(task.eval_docs)[: self.spec.limit], None, *shots):
                digest.update(json.dumps(part, sort_keys=True, default=repr).encode() + b"\n")
        return f"lm_eval:{digest.hexdigest()}:{json.dumps([self.spec.lm_eval, self.spec.limit])}"

    def score(self, module: nn.Module, tokenizer: Any, *, batch_size: int) -> Score:
        """Return the mean of the recipe's metric over the tasks, and every metric of each task as `task/metric`.

        Several processes each evaluate some of the tasks, and all return the score. Raises ValidationError if a task
        lacks the metric or cannot be run, NetworkError if the network is not one of transformers.
        """
        if not hasattr(module, "config"):
            raise NetworkError(
                f"lm_eval: takes a network of transformers, {type(module).__name__} is none",
                hint="model: {transformers: auto}",
            )
        if tokenizer is None:
            raise NetworkError(
                "lm_eval: there is no tokenizer beside the weights", hint="tokenizer.save_pretrained(...)"
            )
        evaluate = import_extra("lm_eval.evaluator", extra=EXTRA).evaluate
        harness = import_extra("lm_eval.models.huggingface", extra=EXTRA)
        with _quiet(), _seeded(), _told(f"lm_eval: {', '.join(self.spec.lm_eval)}"):
            network = harness.HFLM(pretrained=module, tokenizer=copy.deepcopy(tokenizer), batch_size=batch_size)

        def results_of(unit: Mapping[str, Any]) -> dict[str, Any]:
            where = f"lm_eval: {', '.join(unit['groups'] or unit['tasks'])}"
            with _quiet(), _seeded(), _told(where), _templates(self.trust_code):
                iterations = 1 if all(_closed_form(task) for task in unit["tasks"].values()) else 0
                found = evaluate(network, unit, limit=self.spec.limit, bootstrap_iters=iterations)
            return {key: dict(found.get(key) or {}) for key in RESULTS}

        each = [found for _, found in processes.shared_out(self.units, results_of)]
        return score_of(self.spec, {key: {k: v for found in each for k, v in found[key].items()} for key in RESULTS})


def load(spec: LmEvalSet, *, trust_code: bool = False) -> Tasks:
    """Load the tasks and their data. Built-in tasks are searched if `include_path` lacks any.

    Raises ValidationError for an unknown task, or if its data cannot be loaded; and unless `trust_code` for a file
    below `include_path` that asks for code to be run.
    """
    manager_class = import_extra("lm_eval.tasks", extra=EXTRA).TaskManager
    where = f"lm_eval: {', '.join(spec.lm_eval)}"
    _check_folder(spec, trust_code=trust_code)
    own = None if spec.include_path is None else str(spec.include_path)
    with _quiet(), _seeded(), _told(where):
        manager = manager_class(include_path=own, include_defaults=False) if own else None
        if manager is None or not set(spec.lm_eval) <= set(manager.all_tasks):
            manager = manager_class(include_path=own)
    for name in spec.lm_eval:
        if name not in manager.all_tasks:
            raise ValidationError(
                f"lm_eval: has no task {name!r}{suggestion(name, manager.all_tasks)}", hint="lm_eval ls tasks lists all"
            )
    with _quiet(), _seeded(), _told(where), _templates(trust_code):
        loaded = manager.load(list(spec.lm_eval))
    for task in loaded["tasks"].values():
        shots = task.get_config("num_fewshot")
        if shots is None or (spec.num_fewshot is not None and shots != 0):
            task.set_config(key="num_fewshot", value=spec.num_fewshot or 0)
        task.set_fewshot_seed(seed=SEEDS["fewshot"])
    return Tasks(spec, loaded, list(_units(spec, loaded)), trust_code)


def _check_folder(spec: LmEvalSet, *, trust_code: bool) -> None:
    if spec.include_path is not None and not spec.include_path.is_dir():
        raise ValidationError(f"{spec.include_path}: no such folder", hint="include_path: a folder of task files")
    if spec.include_path is not None and not trust_code:
        refuse_code(spec.include_path)


def check(spec: LmEvalSet, name: str, trust_code: bool) -> None:
    """Raises ValidationError for files of `depends:` and a folder of tasks that are missing, and for untrusted code."""
    files_of_depends(name, spec)
    _check_folder(spec, trust_code=trust_code)


def _units(spec: LmEvalSet, loaded: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Each group and each task of the recipe with what belongs to it; last, together, the tasks of its tags."""
    tasks, groups = dict(loaded["tasks"]), loaded["groups"]
    for name in spec.lm_eval:
        if name in groups:
            below = {name: groups[name], **{one.name: one for one in groups[name].get_all_groups()}}
            own = {task.task_name: tasks.pop(task.task_name) for task in groups[name].get_all_tasks()}
            children = {one: loaded["group_map"][one] for one in below}
            yield {"tasks": own, "groups": below, "group_map": children}
        elif name in tasks:
            yield {"tasks": {name: tasks.pop(name)}, "groups": {}, "group_map": {}}
    if tasks:
        yield {"tasks": tasks, "groups": {}, "group_map": {}}


class LoadedTasks:
    """The tasks of sets, each loaded once."""

    def __init__(self, *, trust_code: bool = False) -> None:
        self._trust_code = trust_code
        self._loaded: dict[str, Tasks] = {}

    def of(self, spec: LmEvalSet) -> Tasks:
        """Return the set's tasks. Raises what `load` raises."""
        name = spec.model_dump_json()
        if name not in self._loaded:
            self._loaded[name] = load(spec, trust_code=self._trust_code)
        return self._loaded[name]


def score_of(spec: LmEvalSet, results: Mapping[str, Any]) -> Score:
    """Return the harness's results as a score. Raises ValidationError if a task lacks the recipe's metric."""
    own, higher = [], set()
    values: dict[str, MetricValue] = {}
    for name in _named(spec, results):
        found = _values(name, results)
        values |= {f"{name}/{metric}": value for metric, value in found.items()}
        metric = _chosen(spec.metric, name, found)
        own.append(found[metric])
        higher.add(results["higher_is_better"].get(name, {}).get(metric.partition(",")[0]))
    if len(higher) != 1 or None in higher:
        raise ValidationError(
            f"lm_eval: {spec.metric} is better higher in some of the tasks and lower in others",
            hint="make a set of each kind",
        )
    mean = math.fsum(value.value for value in own) / len(own)
    errors = [value.stderr for value in own]
    error = None if None in errors else math.sqrt(math.fsum(e * e for e in errors if e is not None)) / len(own)
    examples = sum(task["effective"] for task in results["n-samples"].values())
    metrics = {spec.metric: MetricValue(mean, error, examples), **values}
    return Score(metrics, spec.metric, higher.pop(), examples, {})


def _named(spec: LmEvalSet, results: Mapping[str, Any]) -> list[str]:
    """Return the tasks that the recipe names, tags replaced by their tasks."""
    known = results["results"]
    named = [name for name in spec.lm_eval if name in known]
    return named if len(named) == len(spec.lm_eval) else sorted(set(known) - set(results.get("group_subtasks", {})))


def _values(name: str, results: Mapping[str, Any]) -> dict[str, MetricValue]:
    """`metric,filter` -> value, of a task or group."""
    row = results["results"][name]
    n = results["n-samples"].get(name, {}).get("effective")
    found = {}
    for key, value in row.items():
        metric, comma, filter_ = key.partition(",")
        if comma and not metric.endswith("_stderr") and isinstance(value, int | float):
            error = row.get(f"{metric}_stderr,{filter_}")
            found[key] = MetricValue(float(value), error if isinstance(error, float) else None, n)
    return found


def _chosen(metric: str, name: str, found: Mapping[str, MetricValue]) -> str:
    matching = [key for key in found if metric in (key, key.partition(",")[0])]
    if len(matching) == 1:
        return matching[0]
    names = [key if matching else key.removesuffix(",none") for key in matching or found]
    problem = f"has {metric} of several filters" if matching else f"has no metric {metric!r}{suggestion(metric, names)}"
    raise ValidationError(f"lm_eval: {name} {problem}", hint=f"metric: one of {', '.join(names)}")


def _closed_form(task: Any) -> bool:
    return all(getattr(aggregate, "__name__", "") in CLOSED_FORM for aggregate in task.aggregation().values())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide the harness's bars and log lines within the block. Errors are raised as exceptions."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield


def _templates(trust_code: bool) -> contextlib.AbstractContextManager[None]:
    """Shut in the templates of tasks within the block, unless the user trusts them."""
    return contextlib.nullcontext() if trust_code else shut_in(import_extra("lm_eval.utils", extra=EXTRA))


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    """Set the seeds of the harness's command line for the block, and restore the previous states."""
    numpy_random = import_extra("numpy", extra=EXTRA).random
    states = random.getstate(), numpy_random.get_state()
    with torch.random.fork_rng():
        random.seed(SEEDS["random"])
        numpy_random.seed(SEEDS["numpy"])
        torch.manual_seed(SEEDS["torch"])
        try:
            yield
        finally:
            random.setstate(states[0])
            numpy_random.set_state(states[1])


@contextlib.contextmanager
def _told(where: str) -> Iterator[None]:
    """Return the error of the harness or its data in one line."""
    try:
        yield
    except Exception as cause:
        first_line = next(iter(str(cause).strip().splitlines()), "")
        raise ValidationError(f"{where}: {type(cause).__name__}: {first_line}") from cause


def measure(
    spec: LmEvalSet, weights: Mixture, _: str, runner: NetworkRunner, tasks: LoadedTasks, _stop: object = None
) -> Score:
    """Return the harness's score of `weights`. The live network is loaded anew afterwards."""
    runner.live.load(weights)
    try:
        module, size = runner.live.network.module, runner.recipe.batch_size
        with restored(module):
            return tasks.of(spec).score(module, runner.network.tokenizer, batch_size=size)
    finally:
        runner.live.forget()


def identity(
    spec: LmEvalSet, _name: str, manifest: Manifest, tasks: LoadedTasks, _warn: Callable[[str], None]
) -> dict[str, Any]:
    """Return the identity of the tasks as loaded, and of all files in the folder of further tasks."""
    return {"tasks": tasks.of(spec).fingerprint, "files": print_below(spec.include_path, manifest)}


KIND: SetKind[LmEvalSet] = SetKind(identity=identity, check=check, measure=measure, shares=True)
