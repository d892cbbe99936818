"""Shows what a command would do (`--dry-run`): resolved recipe, inputs, evaluations, outputs. Loads no tensor."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from soupcli.checkpoints.checkpoint import total_bytes
from soupcli.datasets.holdout import whole_of
from soupcli.datasets.load import check
from soupcli.evaluation.outside.program_files import split
from soupcli.files.json_text import dump_json, plain
from soupcli.mixing.adapter_mean import soup_specs
from soupcli.output import console
from soupcli.output.sentences import describe_classes
from soupcli.report.tables import Column, Table
from soupcli.user_code.function import content_of
from soupcli.wording import human_bytes

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.mixing.mixture import Mixture
    from soupcli.run.run import Run

SCHEMA = "soup-plan/1"


class Plan(NamedTuple):
    """The most `evaluations` that a command would do, and the `soup` that it would write, None if none."""

    evaluations: int
    soup: Mixture | None = None


def show_plan(run: Run, plan: Plan) -> int:
    """Print the plan as a table, as JSON or as the paths of the ingredients.

    Raises SoupError for sets and code that a run would refuse before it evaluates.
    """
    _check(run)
    options, recipe = run.options, run.recipe
    resolved = plain(recipe.model_dump(exclude_none=True))
    sizes = {str(checkpoint.path): total_bytes(checkpoint) for checkpoint in run.checkpoints}
    written = sum(spec.nbytes for spec in soup_specs(plan.soup).values()) if plan.soup is not None else None
    code, commands = _code(run)
    if options.as_json:
        document = {
            "schema": SCHEMA,
            "command": run.command.name,
            "device": str(run.device),
            "recipe": resolved,
            "ingredients": [_described(one) for one in run.checkpoints],
            "left_out": [{"path": str(one.path), "reason": reason} for one, reason in run.left_out],
            "sets": list(run.sets),
            "transforms": run.transforms,
            "classes": {name: order.model_dump(mode="json") for name, order in run.classes.items()},
            "code": code,
            "commands": commands,
            "evaluations": plan.evaluations,
            "bytes_read": sum(sizes.values()),
            "bytes_written": written,
            "out": str(recipe.out) if written is not None else None,
        }
        console.print_json(dump_json(document))
    elif options.quiet:
        console.print_lines(list(sizes))
    else:
        _show_table(run, plan, sizes, written, {"runs code": code, "runs command": commands})
        console.note("the recipe, resolved:", *yaml.safe_dump(resolved, sort_keys=False).rstrip().split("\n"))
    return 0


def _check(run: Run) -> None:
    for name, spec in run.sets.items():
        check(spec, whole_of(name), trust_code=run.options.trust_code)
    for reference in _code(run)[0]:
        content_of(reference)


def _beneath(group: Checkpoint) -> list[str]:
    """Return the members' paths, relative to the group's folder."""
    folder = group.path
    paths = [member.path for member in group.members]
    return [str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path) for path in paths]


def _described(one: Checkpoint) -> dict[str, Any]:
    own = {"path": str(one.path), "bytes": total_bytes(one), "key": one.origin.key, "notes": [*one.origin.notes]}
    members = [str(member.path) for member in one.members]
    return {**own, "members": members}


def _code(run: Run) -> tuple[list[str], list[str]]:
    """Return the functions and commands of the recipe that the run would start."""
    model, sets = run.recipe.model, run.sets.values()
    code = [*(model.code if model is not None else []), *(reference for spec in sets for reference in spec.code)]
    commands = [shlex.join(split(command)) for spec in sets for command in spec.programs]
    return code, commands


def _show_table(run: Run, plan: Plan, sizes: dict[str, int], written: int | None, runs: dict[str, list[str]]) -> None:
    rows: list[list[str]] = []
    for number, ((path, size), one) in enumerate(zip(sizes.items(), run.checkpoints, strict=True)):
        rows.append(["ingredients" if number == 0 else "", f"{path}  {human_bytes(size)}"])
        if one.members:
            rows.append(["", f"  the mean of {len(one.members)}: {', '.join(_beneath(one))}"])
    for number, (left_out, reason) in enumerate(run.left_out):
        rows.append(["left out" if number == 0 else "", f"{left_out.path}  {reason}"])
    rows.append(["to read", f"{len(run.singles)} checkpoints, {human_bytes(sum(sizes.values()))}"])
    rows.append(["to evaluate", f"at most {plan.evaluations} times, on {', '.join(run.sets) or 'no set'}"])
    rows += [["transform", f"{name}: {source}"] for name, source in run.transforms.items()]
    for name, order in run.classes.items():
        rows.append(["classes", f"{name}: {describe_classes(order)}"])
    if written is not None:
        rows.append(["to write", f"{run.recipe.out}  {human_bytes(written)}"])
    rows += [[what, reference] for what, references in runs.items() for reference in references]
    rows.append(["device", str(run.device)])
    console.print_table(Table("Plan", [Column("plan"), Column("")], rows))
