"""What tests of memory count with: the bytes of tensors that are alive, those included that a thread reads into."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from soupcli.checkpoints.checkpoint import NO_PLACES, Checkpoint
from soupcli.errors import CheckpointError


class Alive(TorchDispatchMode):
    """The most bytes that tensors made while it is on held at once, those included that were read into."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._made: list[weakref.ref[Tensor]] = []

    def count(self, tensor: Tensor) -> None:
        """Takes a tensor that was made elsewhere."""
        self._made = [made for made in [*self._made, weakref.ref(tensor)] if made() is not None]
        storages = [alive.untyped_storage() for made in self._made if (alive := made()) is not None]
        self.peak = max(self.peak, sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values()))

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Counts what every operation makes."""
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                self.count(leaf)
        return made


class Spied:
    """A checkpoint that counts what is read from it, and that fails at the n-th reading of a tensor."""

    def __init__(self, checkpoint: Checkpoint, *, on_read: Callable[[Tensor], None] | None = None) -> None:
        self.path, self.tensors, self.files = checkpoint.path, checkpoint.tensors, checkpoint.files
        self.side_files, self.origin, self.folder = checkpoint.side_files, checkpoint.origin, checkpoint.folder
        self.sources, self.members = checkpoint.sources, checkpoint.members
        self.is_adapter = checkpoint.is_adapter
        self.own, self.taken = self, checkpoint.taken
        self.adapted, self.inherited, self.places = checkpoint.adapted, checkpoint.inherited, NO_PLACES
        self.parts, self.constants = checkpoint.parts, checkpoint.constants
        self.side_folder = checkpoint.side_folder
        self.readings = 0
        self.fail_at: int | None = None
        self._checkpoint, self._on_read = checkpoint, on_read

    def read(self, name: str, out: Tensor, *, start: int = 0) -> None:
        """See Checkpoint.read."""
        self.readings += 1
        if self._on_read is not None:
            self._on_read(out)
        if self.fail_at == self.readings:
            raise CheckpointError("interrupted")
        self._checkpoint.read(name, out, start=start)
