"""Groups of checkpoints, of one run or folder, that count as one ingredient: their mean (FissionFusion).

groups = grouped(checkpoints, "run")                      # one for each folder of checkpoints
groups = grouped(checkpoints, "sweeps/*")                 # one for each folder that matches the pattern
groups[0].members                                         # the checkpoints, in the order of their steps
"""

from __future__ import annotations

import math
from collections.abc import Collection, Container, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from soupcli.checkpoints.checkpoint import NO_PLACES, TensorSpec, read_part
from soupcli.checkpoints.dtype import Dtype
from soupcli.checkpoints.window import folder_of_run, in_order_of_steps
from soupcli.errors import UsageError
from soupcli.late import torch
from soupcli.mixing.arithmetic.rounding import round_tensor
from soupcli.wording import natural_order

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.checkpoints.checkpoint import Checkpoint, Component, Origin
    from soupcli.files.reading import FileVersion

BY_RUN = "run"


@dataclass(frozen=True, eq=False)
class CheckpointGroup:
    """See Checkpoint: the mean of `members`. The last member gives unaveraged tensors and side files.

    A mixture replaces a group by its members, so that a soup is summed exactly and rounded once. `read` rounds to the
    members' dtype; it is only for measurements.
    """

    path: Path  # the folder of the run
    members: tuple[Checkpoint, ...]
    is_wide: bool = False  # whether the mean is given in float32 or wider

    places = NO_PLACES
    taken = ()

    @property
    def own(self) -> Checkpoint:
        """See Checkpoint.own."""
        return self

    @property
    def last(self) -> Checkpoint:
        """The member that gives unaveraged tensors."""
        return self.members[-1]

    @cached_property
    def tensors(self) -> dict[str, TensorSpec]:
        """See Checkpoint.tensors."""
        return {name: self._spec(name) for name in self.last.tensors}

    @property
    def files(self) -> tuple[FileVersion, ...]:
        """The files of all members."""
        return tuple(dict.fromkeys(file for member in self.members for file in member.files))

    @property
    def side_files(self) -> tuple[Path, ...]:
        """See Checkpoint.side_files."""
        return self.last.side_files

    @property
    def side_folder(self) -> Path | None:
        """See Checkpoint.side_folder."""
        return self.last.side_folder

    @property
    def folder(self) -> Path:
        """See Checkpoint.folder."""
        return self.last.folder

    @property
    def origin(self) -> Origin:
        """See Checkpoint.origin. No trainer measured a mean, so there are no metrics."""
        notes = dict.fromkeys(note for member in self.members for note in member.origin.notes)
        return self.last.origin._replace(metrics={}, notes=tuple(notes), revision=None)

    @property
    def sources(self) -> Sequence[Checkpoint]:
        """See Checkpoint.sources."""
        return list(dict.fromkeys(source for member in self.members for source in member.sources))

    @property
    def is_adapter(self) -> bool:
        """See Checkpoint.is_adapter."""
        return self.last.is_adapter

    @property
    def adapted(self) -> Collection[str]:
        """See Checkpoint.adapted."""
        return {name for member in self.members for name in member.adapted}

    @property
    def inherited(self) -> Collection[str]:
        """See Checkpoint.inherited."""
        return self.last.inherited

    @property
    def parts(self) -> Sequence[Component]:
        """See Checkpoint.parts."""
        return self.last.parts

    @property
    def constants(self) -> Container[str]:
        """See Checkpoint.constants."""
        return self.last.constants

    def read(self, name: str, out: Tensor, *, start: int = 0) -> None:
        """See Checkpoint.read: the mean, summed in float64 and rounded once."""
        spec = self.tensors[name]
        if not spec.dtype.is_averaged:
            self.last.read(name, out, start=start)
            return
        total = torch.zeros(out.numel(), dtype=torch.complex128 if spec.dtype.is_complex else torch.float64)
        for member in self.members:
            total += read_part(member, name, start, out.numel())
        total /= len(self.members)
        if spec.dtype.is_complex:
            out.view(-1).copy_(total)
        else:
            round_tensor(total, out.dtype, out=out.view(-1))

    def _spec(self, name: str) -> TensorSpec:
        spec = self.last.tensors[name]
        if not spec.dtype.is_averaged:
            return spec
        dtype = spec.dtype.common(Dtype.FLOAT32) if self.is_wide else spec.dtype
        for member in self.members:
            dtype = dtype.common(member.tensors[name].dtype)
        return TensorSpec(spec.shape, dtype)


def members_of(checkpoint: Checkpoint) -> tuple[Checkpoint, ...]:
    """Return the members of a group, or the checkpoint itself."""
    return tuple(checkpoint.members) or (checkpoint,)


def group_paths(members: Iterable[Checkpoint], ingredients: Iterable[Checkpoint]) -> list[str]:
    """Return the path of each ingredient that `members` belong to, once; for groups the group's own."""
    groups = [one for one in ingredients if one.members]
    if not groups:
        return [str(member.path) for member in members]
    paths = {member.path: str(group.path) for group in groups for member in group.members}
    return list(dict.fromkeys(paths[member.path] for member in members if member.path in paths))


def group_weights(
    members: Sequence[Checkpoint], weights: Sequence[float], ingredients: Iterable[Checkpoint]
) -> list[float]:
    """Return the weight of each path in `group_paths` of the same members."""
    groups = {member.path: group.path for group in ingredients for member in members_of(group)}
    whole: dict[Path, list[float]] = {}
    for member, weight in zip(members, weights, strict=True):
        whole.setdefault(groups.get(member.path, member.path), []).append(weight)
    return [math.fsum(shares) for shares in whole.values()]


def grouped(checkpoints: Sequence[Checkpoint], by: str) -> list[CheckpointGroup]:
    """Group the checkpoints. Groups are in natural order of their folders.

    `by` is "run", for the folder of a checkpoint, or a shell pattern of folders. Raises UsageError for a checkpoint
    without a matching folder, or with several.
    """
    members: dict[Path, list[Checkpoint]] = {}
    paths: dict[Path, Path] = {}
    for one in checkpoints:
        path = folder_of_group(one, by)
        members.setdefault(path.absolute(), []).append(one)
        paths.setdefault(path.absolute(), path)
    groups = [CheckpointGroup(paths[key], tuple(in_order_of_steps(found))) for key, found in members.items()]
    return sorted(groups, key=lambda group: natural_order(str(group.path)))


def folder_of_group(one: Checkpoint, by: str) -> Path:
    """Return the folder whose checkpoints are grouped. Raises UsageError for none that matches, and for several."""
    return folder_of_run(one) if by == BY_RUN else _folder_that_fits(one, by)


def _folder_that_fits(one: Checkpoint, pattern: str) -> Path:
    fitting = [folder for folder in (one.path, *one.path.parents) if _fits(folder, pattern)]
    if not fitting:
        raise UsageError(
            f"--group-by {pattern}: {one.path} lies in no folder that it fits",
            hint=f"a pattern of the groups' folders, e.g. --group-by '{one.path.parent.parent / '*'}', or run",
        )
    if len(fitting) > 1:
        raise UsageError(
            f"--group-by {pattern}: {one.path} lies in two folders that it fits, {fitting[1]} and {fitting[0]}",
            hint="name the folders of one level",
        )
    return fitting[0]


def _fits(folder: Path, pattern: str) -> bool:
    """Whether the pattern fits the whole path, each part of it the part in the same place."""
    parts, wanted = folder.absolute().parts, Path(pattern).absolute().parts
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))
