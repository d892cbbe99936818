"""Chooses the mixed tensors by --include, --exclude and --take. The rest come from the base or the best ingredient.

    selection = TensorFilter(("backbone.*",), ())
    shared = selection.applied(ingredient, best)             # backbone.* of the ingredient, all else of the best

A tensor that is equal in all members of a mixture is unchanged in the mean, so nothing else has to know of filters.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from soupcli.checkpoints.checkpoint import NO_PLACES
from soupcli.errors import UsageError
from soupcli.wording import nearest

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.checkpoints.checkpoint import Checkpoint, Component, Origin, TensorSpec
    from soupcli.files.reading import FileVersion


class TensorFilter(NamedTuple):
    """Shell patterns of names. A tensor is mixed if it matches `include` (empty: all) and no other pattern.

    Tensors that match `take` come from the best ingredient; other unmixed ones from the base if there is one.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    take: tuple[str, ...] = ()

    def mixes(self, name: str) -> bool:
        """Whether the tensor `name` is mixed."""
        included = not self.include or any(fnmatchcase(name, pattern) for pattern in self.include)
        return included and not any(fnmatchcase(name, pattern) for pattern in (*self.exclude, *self.take))

    @property
    def of_base(self) -> TensorFilter:
        """The filter for a base: all patterns except `take`."""
        return self._replace(take=())

    @property
    def of_best(self) -> TensorFilter:
        """The filter for the best ingredient if there is a base: only `take`."""
        return TensorFilter(take=self.take)

    def check(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Raises UsageError for a pattern that matches no tensor, or if nothing is left to mix."""
        names = list(dict.fromkeys(name for checkpoint in checkpoints for name in checkpoint.tensors))
        for flag, patterns in (("--include", self.include), ("--exclude", self.exclude), ("--take", self.take)):
            for pattern in patterns:
                if not any(fnmatchcase(name, pattern) for name in names):
                    near = nearest(pattern, names, least=0.3) or names[0]
                    raise UsageError(f"{flag} {pattern}: fits no tensor", hint=f"tensors have names like {near!r}")
        if not any(self.mixes(name) for name in names):
            raise UsageError(
                "--include, --exclude, --take: no tensor is left to mix",
                hint="--include says what is mixed (default: all), --exclude and --take what is not",
            )

    def applied(self, checkpoint: Checkpoint, source: Checkpoint) -> Checkpoint:
        """Return `checkpoint` with unmixed tensors from `source`."""
        if checkpoint is source or not any(self):
            return checkpoint
        own = {name: spec for name, spec in checkpoint.tensors.items() if self.mixes(name)}
        passed = {name: spec for name, spec in source.tensors.items() if not self.mixes(name)}
        return FilteredCheckpoint(checkpoint, source, frozenset(passed), own | passed)


@dataclass(frozen=True, eq=False)
class FilteredCheckpoint:
    """See Checkpoint: an ingredient that takes some tensors from another checkpoint."""

    own: Checkpoint
    source: Checkpoint
    taken: frozenset[str]  # tensors of the source
    tensors: Mapping[str, TensorSpec]

    members = ()
    places = NO_PLACES

    @property
    def path(self) -> Path:
        """See Checkpoint.path."""
        return self.own.path

    @property
    def files(self) -> tuple[FileVersion, ...]:
        """The ingredient's own."""
        return self.own.files

    @property
    def side_files(self) -> tuple[Path, ...]:
        """The source's, whose head it has; its own if the source has none."""
        return self.source.side_files or self.own.side_files

    @property
    def side_folder(self) -> Path | None:
        """The folder of `side_files`."""
        return self.source.side_folder if self.source.side_files else self.own.side_folder

    @property
    def folder(self) -> Path:
        """See Checkpoint.folder."""
        return self.source.folder if self.source.side_files else self.own.folder

    @property
    def origin(self) -> Origin:
        """See Checkpoint.origin."""
        return self.own.origin

    @property
    def sources(self) -> Sequence[Checkpoint]:
        """See Checkpoint.sources."""
        return [self.source, *self.source.sources, *self.own.sources]

    @property
    def is_adapter(self) -> bool:
        """See Checkpoint.is_adapter."""
        return self.own.is_adapter

    @property
    def adapted(self) -> Collection[str]:
        """See Checkpoint.adapted."""
        return {*self.own.adapted, *self.source.adapted}

    @property
    def inherited(self) -> Collection[str]:
        """See Checkpoint.inherited."""
        return self.own.inherited

    @property
    def parts(self) -> Sequence[Component]:
        """See Checkpoint.parts."""
        return self.own.parts

    @property
    def constants(self) -> Container[str]:
        """See Checkpoint.constants."""
        return self.own.constants

    def read(self, name: str, out: Tensor, *, start: int = 0) -> None:
        """See Checkpoint.read."""
        (self.source if name in self.taken else self.own).read(name, out, start=start)
