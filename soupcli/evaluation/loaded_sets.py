"""The examples of each set and of its parts, loaded once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from soupcli import processes
from soupcli.datasets import load as set_kinds
from soupcli.datasets.examples import ArrayExamples, Examples
from soupcli.datasets.holdout import part_of, whole_of
from soupcli.datasets.load_context import LoadContext
from soupcli.datasets.overlap import ContentStore, contents_of, shared
from soupcli.errors import SoupError
from soupcli.files.json_text import key_of
from soupcli.networks.build import key_of_network
from soupcli.networks.learned import residence

if TYPE_CHECKING:
    from soupcli.datasets.input_cache import InputCache
    from soupcli.evaluation.context import EvaluationContext
    from soupcli.evaluation.keys import Keys
    from soupcli.networks.network import Network
    from soupcli.recipe.sets import SetSpec


class LoadedSets:
    """The examples of the sets. Sets in `on_device` are kept there whole. `inputs` holds what earlier runs decoded.

    `beside` is the checkpoint whose files define how inputs are made.
    """

    def __init__(
        self,
        context: EvaluationContext,
        keys: Keys,
        network: Callable[[], Network],
        inputs: InputCache,
        contents: ContentStore,
    ) -> None:
        self.on_device: tuple[str, ...] = ()
        self._context = context
        self._keys = keys
        self._network = network
        self._inputs = inputs
        self._contents = contents
        self._examples: dict[str, Examples] = {}
        self._whole: dict[str, Examples] = {}
        self.beside = context.first

    def of(self, name: str, spec: SetSpec) -> Examples:
        """Return the examples of the set `name`. Raises ValidationError for faults of the set."""
        if name not in self._examples:
            examples, part = self._load_whole(name, spec), self._context.parts.get(name)
            if part is not None:
                examples = part_of(examples, part, str(self._keys.fingerprints[name]))
            key = self._keys.of_contents(name, self.beside)
            if processes.is_first() and self._contents.get(key) is None:
                self._contents.put(key, contents_of(examples))
            self._examples[name] = examples
        return self._examples[name]

    def forget(self) -> None:
        """Drop all examples, for a network with other inputs."""
        self._examples.clear()
        self._whole.clear()
        self.on_device = ()

    def _load_whole(self, name: str, spec: SetSpec) -> Examples:
        """Load the set `name`, or the whole set that it is a part of."""
        whole = whole_of(name) if name in self._context.parts else name
        if whole not in self._whole:
            with processes.first_before_others():
                given = LoadContext(
                    network=self._network(),
                    name=f"val.{whole}",
                    beside=str(self.beside.path),
                    metric=self._context.metric_of(name),
                    workers=self._context.recipe.workers,
                    cache=self._inputs,
                    mark=key_of({"network": key_of_network(self._context.recipe.model, self.beside)}),
                    warn=self._context.warn,
                    note=self._context.note,
                    progress=self._context.progress,
                )
                examples = set_kinds.load(spec, given)
            try:
                self._keys.confirm(name)  # what was decoded is what the key says
            except SoupError:
                self._inputs.discard()
                raise
            self._whole[whole] = self._settled(whole, examples)
        return self._whole[whole]

    def _settled(self, name: str, examples: Examples) -> Examples:
        """Move the whole set to a CUDA device if it fits beside the network, its sum and a batch."""
        if self._context.device.type != "cuda" or not isinstance(examples, ArrayExamples):
            return examples
        device = self._context.device.torch
        network = sum(tensor.nbytes for tensor in self._network().module.state_dict().values())
        if residence.plan(examples.inputs.nbytes, 4 * network, device, wanted="auto").where != "device":
            return examples
        self.on_device += (name,)
        return replace(examples, inputs=examples.inputs.to(device))

    def shared(self, name: str, others: str) -> int | None:
        """Count the examples of a set that are also in another. Returns None if one of them was not loaded."""
        own, other = (self._contents.get(self._keys.of_contents(one)) for one in (name, others))
        return shared(own, other) if own is not None and other is not None else None
