"""The one live network of a run, and the functions from a set's examples to logits at its present weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from soupcli.datasets.load import kind_of
from soupcli.errors import NetworkError, ValidationError
from soupcli.evaluation.labelled_set import LabelledSet
from soupcli.evaluation.loaded_sets import LoadedSets
from soupcli.late import torch
from soupcli.metrics.table import LABELS
from soupcli.networks import flops
from soupcli.networks.batch_norm import calibration_batches, layers_with_statistics, recalibrate
from soupcli.networks.build import build, key_of_network
from soupcli.networks.live import LiveNetwork
from soupcli.networks.precision import arrange, computing, eagerly

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.datasets.examples import Examples
    from soupcli.datasets.input_cache import InputCache
    from soupcli.datasets.overlap import ContentStore
    from soupcli.evaluation.context import EvaluationContext
    from soupcli.evaluation.keys import Keys
    from soupcli.mixing.mixture import Mixture
    from soupcli.networks.network import Batch, Forward, Network
    from soupcli.recipe.sets import SetSpec


class NetworkRunner:
    """The network on its device. It is built, and inputs are decoded, when they are first used."""

    def __init__(
        self,
        context: EvaluationContext,
        keys: Keys,
        inputs: InputCache,
        contents: ContentStore,
    ) -> None:
        self.recipe = context.recipe
        self._context = context
        self.warn, self.progress = context.warn, context.progress
        self.examples = LoadedSets(context, keys, lambda: self.network, inputs, contents)
        self._described_by = context.first
        self._network: Network | None = None
        self._network_keys: dict[Path, str] = {}
        self._live: LiveNetwork | None = None
        self._prompted: tuple[tuple[object, Mixture], Forward] | None = None

    @property
    def device(self) -> torch.device:
        """The network's device."""
        return self._context.device.torch

    @property
    def network(self) -> Network:
        """The network without weights, as the recipe and the checkpoint that describes it define it."""
        if self._network is None:
            self._context.building()
            self._network = build(self.recipe.model, self._described_by, trust_code=self._context.trust_code)
        return self._network

    def describe_by(self, checkpoint: Checkpoint) -> None:
        """Take the network, the preparation of inputs and the class names from the files beside `checkpoint`.

        If these differ from before, the network and the examples are made anew. One of each is in memory.
        """
        if checkpoint is self._described_by:
            return
        if not self.shares_network(checkpoint, self._described_by):
            self._network = self._live = self._prompted = None
            self.examples.forget()
        self._described_by = checkpoint
        self.examples.beside = checkpoint

    def shares_network(self, checkpoint: Checkpoint, other: Checkpoint) -> bool:
        """Whether the files beside both checkpoints define the same network and inputs."""
        return self._key_of_network(checkpoint) == self._key_of_network(other)

    def _key_of_network(self, checkpoint: Checkpoint) -> str:
        path = checkpoint.path  # files of one folder, and adapters on one base, may state other classes
        if path not in self._network_keys:
            self._network_keys[path] = key_of_network(self.recipe.model, checkpoint)
        return self._network_keys[path]

    @property
    def live(self) -> LiveNetwork:
        """The network that weights go into."""
        if self._live is None:
            again = self.recipe.batch_norm != "average" and layers_with_statistics(self.network.module)
            settle = self._settle if again else None
            self._live = LiveNetwork(self.network, self.device, settle=settle, say=self._context.warn)
            recipe = self.recipe
            arrange(self.network, channels_last=recipe.channels_last, compiled=recipe.compile)
        return self._live

    def forward(self, name: str, spec: SetSpec, weights: Mixture) -> Forward:
        """Return the function from inputs to the outputs that the set's metrics need, computed as the recipe says."""
        recipe, device = self.recipe, self.device
        of_kind = kind_of(spec).forward
        if of_kind is not None:
            forward = of_kind(self.network)
        else:
            with torch.inference_mode():
                classifier = self._classifier(name, spec, weights)
            forward = self._judged(name, spec, classifier or self.network.forward)
        return computing(forward, amp=recipe.amp, channels_last=recipe.channels_last, device=device)

    def labelled(self, name: str, spec: SetSpec) -> LabelledSet:
        """The set's examples, and the network's logits for them at its weights of the moment.

        Raises ValidationError if examples have neither one class each nor rows of 0 and 1.
        """
        examples = self.examples.of(name, spec)
        if examples.kind not in ("classes", "multilabel"):
            raise ValidationError(
                f"val.{name}: coefficients are fitted on classes or rows of 0 and 1, not on {LABELS[examples.kind]}",
                hint="learned --by search takes any metric",
            )

        def forward() -> Forward:
            return self._judged(name, spec, eagerly(self._classifier(name, spec) or self.network.forward))

        return LabelledSet(examples, forward, f"val.{name}", self.device, self.recipe.batch_size)

    def operations(self, name: str, spec: SetSpec, weights: Mixture) -> int:
        """Return the FLOPs of a forward pass of the first example that is visited."""
        self.describe_by(weights.kept)
        self.live.load(weights)
        examples = self.examples.of(name, spec)
        batch = examples.batch(examples.order()[:1], self.device)
        return flops.count(eagerly(self.forward(name, spec, weights)), batch)

    def statistics(self, weights: Mixture) -> dict[str, Tensor]:
        """Return copies of the running statistics that an evaluation of `weights` uses."""
        self.describe_by(weights.kept)
        if weights.is_one_network or not layers_with_statistics(self.network.module):
            return {}
        self.live.load(weights)
        return {name: place.detach().to("cpu", copy=True) for name, place in self._statistics_of(weights).items()}

    def _judged(self, name: str, spec: SetSpec, forward: Forward) -> Forward:
        """Return the logits of the classes that the set covers."""
        classes = self.examples.of(name, spec).classes
        return classes.onto(forward) if classes is not None else forward

    def _classifier(self, name: str, spec: SetSpec, weights: Mixture | None = None) -> Forward | None:
        """Return the classifier for networks that have none themselves, at their present weights; otherwise None.

        A classifier made of words is built once for all sets with the same words, if the weights are known.
        """
        of_kind = kind_of(spec).classifier
        prompted = of_kind(spec, name, self.network) if of_kind is not None else None
        if prompted is None:
            if self.network.zero_shot is not None:
                hint = "classnames: FILE, one name a line"
                raise NetworkError(f"val.{name}: a CLIP network needs classnames: to classify", hint=hint)
            return None
        if weights is None:
            return prompted.make(self.network.module)
        if self._prompted is None or self._prompted[0] != (prompted.words, weights):
            self._prompted = (prompted.words, weights), prompted.make(self.network.module)
        return self._prompted[1]

    def _settle(self, weights: Mixture) -> None:
        """Re-estimate running statistics of a mean, then round them as in the soup's file."""
        if weights.is_one_network:
            return
        examples = self.examples.of(*self._context.calibrating_set())
        recalibrate(self.network.module, eagerly(self.network.forward), self._calibrating_inputs(examples))
        for name, place in self._statistics_of(weights).items():
            place.copy_(place.to(weights.spec(name).dtype.torch))

    def _calibrating_inputs(self, examples: Examples) -> Iterator[Batch]:
        done = 0
        for indices in calibration_batches(len(examples.labels)):
            yield examples.batch(indices, self.device)
            done += len(indices)
            self._context.progress("re-estimating batch norm", done, len(examples.labels))

    def _statistics_of(self, weights: Mixture) -> dict[str, Tensor]:
        """Return the live network's running means and variances, by their names in the checkpoints."""
        layers = layers_with_statistics(self.network.module)
        own = {id(tensor) for layer in layers for tensor in (layer.running_mean, layer.running_var)}
        return {name: place for name, place in self.live.places(weights.kept).items() if id(place) in own}
