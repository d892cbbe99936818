"""Maps a checkpoint's tensors to a network's, strictly by name and shape."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from soupcli.checkpoints.checkpoint import Checkpoint, weights_file
from soupcli.errors import NetworkError
from soupcli.late import nn
from soupcli.networks.fitted_names import fit_names, several_prefixes
from soupcli.wording import nearest, suggestion, with_article

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.networks.network import Network

_HINT = "model: in the recipe must build the network that these weights were saved from"


class Slots:
    """Parameters and persistent buffers of a network, by a checkpoint's names."""

    def __init__(self, network: Network, say: Callable[[str], None] = lambda _: None) -> None:
        """`say` is called once for each change to names that makes them fit."""
        self.network = network
        self._say = say
        self._said: set[str] = set()
        self._kind = type(network.module).__name__
        self._slots = _state(network.module)
        self._counters = _batch_counters(network.module)
        self._places: dict[Checkpoint, dict[str, Tensor]] = {}

    def of(self, checkpoint: Checkpoint) -> Mapping[str, Tensor]:
        """Map names in the checkpoint to tensors of the network, without those that the library drops.

        Raises NetworkError at the first name, shape or kind of dtype that does not fit.
        """
        if checkpoint not in self._places:
            self._places[checkpoint] = self._fitted(checkpoint)
        return self._places[checkpoint]

    def _fitted(self, checkpoint: Checkpoint) -> dict[str, Tensor]:
        names = self._names(checkpoint)
        self._check_missing(checkpoint, names)
        spare = checkpoint.inherited
        places: dict[str, Tensor] = {}
        for stored, name in names.items():
            if name in self._slots:
                self._check_tensor(checkpoint, stored, self._slots[name])
                places[stored] = self._slots[name]
            elif stored not in spare and not any(re.search(pattern, stored) for pattern in self.network.ignored_names):
                raise NetworkError(
                    f"{weights_file(checkpoint)}: has tensor {stored!r}, "
                    f"which the network {self._kind} has no place for{suggestion(stored, self._slots)}",
                    hint=_HINT,
                )
        self._check_shared(checkpoint, places)
        return places

    def _names(self, checkpoint: Checkpoint) -> dict[str, str]:
        """Map stored names to names in the network, by the library's rules or by removing wrappers' prefixes."""
        names = {name: name for name in checkpoint.tensors}
        if self.network.stored_names is not None:
            names = dict(self.network.stored_names(checkpoint.tensors))
        held, wanted = set(names.values()), self._wanted()
        if all(not held.isdisjoint(group) for group in wanted):
            return names
        fitted = fit_names(names.values(), wanted, [*self._counters])
        if fitted is None:
            return names
        if fitted.note is not None and fitted.note not in self._said:
            self._said.add(fitted.note)
            self._say(f"{checkpoint.path}: {fitted.note}")
        outside = set(fitted.outside)
        return {stored: fitted.names[name] for stored, name in names.items() if name not in outside}

    def _wanted(self) -> list[list[str]]:
        """Return the names of each tensor that the network needs: several if it is shared."""
        shared: dict[int, list[str]] = {}
        for name, slot in self._slots.items():
            if name not in self._counters:
                shared.setdefault(id(slot), []).append(name)
        return [*shared.values()]

    def _check_shared(self, checkpoint: Checkpoint, places: Mapping[str, Tensor]) -> None:
        """Raises NetworkError if an adapter changes a weight that other layers share, since they would change too."""
        for stored in checkpoint.adapted:
            sharing = [name for name, slot in self._slots.items() if slot is places.get(stored)]
            if len(sharing) > 1:
                raise NetworkError(
                    f"{weights_file(checkpoint)}: adapts {stored!r}, whose weight the network {self._kind} shares "
                    f"between {sharing[0]!r} and {sharing[1]!r}: it cannot be evaluated as merged weights",
                    hint="such adapters are mixed without --val",
                )

    def _check_missing(self, checkpoint: Checkpoint, names: Mapping[str, str]) -> None:
        filled = {id(self._slots[name]) for name in names.values() if name in self._slots}
        missing = [name for name, slot in self._slots.items() if id(slot) not in filled and name not in self._counters]
        several = several_prefixes(names.values(), self._wanted()) if missing else []
        if several:
            kept = (
                f"name.removeprefix({several[0]!r}): state[name] for name in state if name.startswith({several[0]!r})"
            )
            raise NetworkError(
                f"{weights_file(checkpoint)}: the network {self._kind} fits {len(several)} parts of it, "
                f"whose names begin with {' and '.join(map(repr, several[:4]))}",
                hint=f"save the one to mix under its own names, of each ingredient: torch.save({{{kept}}}, other_path)",
            )
        if missing:
            spare = [stored for stored, name in names.items() if name not in self._slots]
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            near = nearest(missing[0], spare)
            hint = f", its nearest is {near!r}" if near is not None else ""
            raise NetworkError(
                f"{weights_file(checkpoint)}: has no tensor {missing[0]!r}{more}, "
                f"which the network {self._kind} needs{hint}",
                hint=_HINT,
            )

    def _check_tensor(self, checkpoint: Checkpoint, name: str, slot: Tensor) -> None:
        shape, dtype = checkpoint.tensors[name]
        if tuple(slot.shape) != shape:
            stored, own = str(list(shape)), str(list(slot.shape))
            what = "shape"
        elif (slot.is_floating_point(), slot.is_complex()) != (dtype.is_floating_point, dtype.is_complex):
            stored, own = str(dtype), str(slot.dtype)
            what = "dtype"
        else:
            return
        raise NetworkError(
            f"{weights_file(checkpoint)}: tensor {name!r} has {what} {stored}, the network {self._kind} has {own}",
            hint=_HINT,
        )


def _state(module: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of the state dict themselves, tied ones under each of their names."""
    own = {id(tensor) for tensor in (*module.parameters(), *module.buffers())}
    state: dict[str, Tensor] = module.state_dict(keep_vars=True)
    for name, slot in state.items():
        if id(slot) not in own:
            raise NetworkError(
                f"the network {type(module).__name__}: its state dict has {name!r}, "
                f"{with_article(slot)} that is neither a parameter nor a buffer of it",
                hint="weights are written into parameters and buffers: register it as one",
            )
    return state


def _batch_counters(module: nn.Module) -> set[str]:
    """Return batch norm's counters, which did not exist before torch 0.4.1 and which no computation uses."""
    return {
        f"{prefix}.num_batches_tracked".removeprefix(".")
        for prefix, part in module.named_modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm)
    }
