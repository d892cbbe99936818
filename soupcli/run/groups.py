"""`--group-by`: checkpoints of one run as one ingredient, and what does not go with that.

checkpoints = ingredients_of(singles, resolved)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from soupcli.checkpoints.groups import grouped
from soupcli.errors import UsageError
from soupcli.output import console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.run.resolve import Resolved


def ingredients_of(singles: Sequence[Checkpoint], resolved: Resolved) -> list[Checkpoint]:
    """The groups of --group-by, or the checkpoints themselves. How many there are is said.

    Raises UsageError for options that know single checkpoints alone.
    """
    by, quiet = resolved.recipe.window.group_by, resolved.options.quiet
    if by is None:
        return list(singles)
    if resolved.command.looks_at_singles:
        if not quiet:
            console.note(f"--group-by {by}: soup {resolved.command.name} looks at each checkpoint by itself")
        return list(singles)
    _check_options(resolved, by)
    groups = grouped(singles, by)
    if not quiet:
        shown = ", ".join(f"{group.path} ({len(group.members)})" for group in groups[:4])
        more = ", ..." if len(groups) > 4 else ""
        console.note(f"{len(singles)} checkpoints count as {len(groups)}, the mean of each group: {shown}{more}")
    return list(groups)


def _check_options(resolved: Resolved, by: str) -> None:
    mix, greedy = resolved.recipe.mix, resolved.recipe.greedy
    of_mix = {"--weights": mix.weights, "--weights-for": mix.weights_for, "--decay": mix.decay}
    given: dict[str, object] = {"logits": resolved.options.logit_folder}
    given |= of_mix if resolved.command.mixes_base else {}
    given |= {"--windows": greedy.windows} if resolved.command.name == "greedy" else {}
    for what, value in given.items():
        if value:
            raise UsageError(
                f"--group-by {by}: {what} go with single checkpoints, not with means of several",
                hint="leave one of them out; soup uniform writes the mean of a run as a checkpoint",
            )
