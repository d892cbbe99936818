"""The base of adapters as an adapter that changes nothing, so that a mixture of adapters can begin at it.

base = BaseAsAdapter.of(adapter)                          # with the names that the adapter gives the base's tensors
mixture = Mixture((adapter, base), (1.5, -0.5))           # W + 1.5 s B A
"""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from soupcli.checkpoints.checkpoint import NO_PLACES, Checkpoint, Origin, TensorSpec

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.checkpoints.adapters.adapter import AdapterCheckpoint
    from soupcli.files.reading import FileVersion


class FilesOfBase:
    """The properties of a checkpoint whose files are those of its `base`. See Checkpoint."""

    base: Checkpoint

    @property
    def path(self) -> Path:
        """See Checkpoint.path: the base's."""
        return self.base.path

    @property
    def files(self) -> tuple[FileVersion, ...]:
        """See Checkpoint.files."""
        return self.base.files

    @property
    def side_files(self) -> tuple[Path, ...]:
        """See Checkpoint.side_files: the base's, whose configuration fits the full network."""
        return self.base.side_files

    @property
    def side_folder(self) -> Path | None:
        """See Checkpoint.side_folder."""
        return self.base.side_folder

    @property
    def folder(self) -> Path:
        """See Checkpoint.folder."""
        return self.base.folder


@dataclass(frozen=True, eq=False)
class BaseAsAdapter(FilesOfBase):
    """See Checkpoint. Tensors that the base has not are 0: biases that adapters add."""

    base: Checkpoint
    names: Mapping[str, str]  # name in the adapted network -> the base's own name
    plain: Mapping[str, str]  # name -> stored name, of tensors that the adapters hold whole
    tensors: Mapping[str, TensorSpec]
    inherited: Collection[str]
    constants: Container[str] = ()

    members = ()
    taken = ()
    is_adapter = True
    adapted = ()
    parts = ()
    places = NO_PLACES

    @classmethod
    def of(cls, adapter: AdapterCheckpoint) -> BaseAsAdapter:
        """Return the base of `adapter`, without tensors that only the adapter holds.

        Raises CheckpointError if the base is missing.
        """
        base, names = adapter.whole_base, adapter.base_names
        specs = {name: base.tensors[own] for name, own in names.items()}
        specs |= {name: adapter.tensors[name] for name in adapter.biases if name not in specs}
        return cls(base, names, adapter.plain, specs, adapter.inherited)

    @property
    def stored(self) -> BaseAsAdapter:
        """Tensors that the adapters hold whole, by the names that they store them under."""
        names = {stored: self.names[name] for name, stored in self.plain.items() if name in self.names}
        specs = {stored: self.base.tensors[own] for stored, own in names.items()}
        return BaseAsAdapter(self.base, names, {}, specs, (), self.constants)

    @property
    def own(self) -> Checkpoint:
        """See Checkpoint.own."""
        return self

    @property
    def origin(self) -> Origin:
        """See Checkpoint.origin."""
        return self.base.origin

    @property
    def sources(self) -> Sequence[Checkpoint]:
        """See Checkpoint.sources."""
        return self.base.sources

    def read(self, name: str, out: Tensor, *, start: int = 0) -> None:
        """See Checkpoint.read."""
        if name in self.names:
            self.base.read(self.names[name], out, start=start)
        else:
            out.zero_()
