"""From a set of the recipe to its examples as a network takes them, and to what tells it from every other set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from soupcli.datasets import arrays, images, text, tokens
from soupcli.errors import NetworkError
from soupcli.metrics.table import metric_named
from soupcli.networks.network import Network
from soupcli.progress import Progress, silent
from soupcli.recipe.sets import ArraysSet, ImagesSet, SetSpec, TextSet, TokensSet

if TYPE_CHECKING:
    from soupcli.datasets.examples import Examples
    from soupcli.datasets.input_cache import InputCache
    from soupcli.files.manifest import Manifest
    from soupcli.networks.network import Network, Outline
    from soupcli.report.scores import ClassOrder

LabelledSet = ArraysSet | ImagesSet | TextSet
ExampleSet = LabelledSet | TokensSet


def fingerprint(spec: SetSpec, manifest: Manifest | None = None) -> str | None:
    """Changes with everything in the set, and not with where it lies; None where the examples are not ours to see."""
    if isinstance(spec, ArraysSet):
        return arrays.fingerprint(spec, manifest)
    if isinstance(spec, ImagesSet):
        return images.fingerprint(spec, manifest)
    if isinstance(spec, TextSet):
        return text.fingerprint(spec, manifest)
    return tokens.fingerprint(spec, manifest) if isinstance(spec, TokensSet) else None


def class_orders(sets: Mapping[str, SetSpec], metric: str, outline: Outline) -> dict[str, ClassOrder]:
    """Which class is which in each set whose classes have names; `metric` is the recipe's."""
    found = {name: _class_order(spec, metric, outline) for name, spec in sets.items()}
    return {name: order for name, order in found.items() if order is not None}


def _class_order(spec: SetSpec, metric: str, outline: Outline) -> ClassOrder | None:
    if isinstance(spec, ImagesSet):
        return images.class_order(spec, outline)
    if isinstance(spec, TextSet) and "numbers" not in metric_named(spec.metric or metric).measures:
        return text.class_order(spec, outline)
    return None


def load(
    spec: ExampleSet,
    network: Network,
    *,
    name: str,
    beside: str,
    metric: str,
    workers: int | None = None,
    cache: InputCache | None = None,
    mark: str = "",
    progress: Progress = silent,
) -> Examples:
    """The examples of the set `name`, labelled as `metric` needs it; `beside` is where a tokenizer was looked for.

    `cache` has inputs that earlier runs have made; `mark` tells the network's tokenizer from all others.

    Raises NetworkError where the network does not say how it sees such inputs, ValidationError for faults of the set.
    """
    if isinstance(spec, ArraysSet):
        return arrays.load(spec, cache.manifest if cache is not None else None)
    if isinstance(spec, ImagesSet):
        if network.pictures is None:
            raise NetworkError(
                f"{name}: no image transform for the network {type(network.module).__name__}",
                hint="processor.save_pretrained(...) puts it beside the weights; a python network takes "
                "transform: 'net.py:transform', a function from a PIL picture to a tensor",
            )
        return images.load(
            spec,
            network.pictures,
            outline=network.outline,
            workers=workers,
            cache=cache,
            progress=progress,
        )
    if network.tokenizer is None:
        raise NetworkError(
            f"{name}: {beside} holds no tokenizer", hint="tokenizer.save_pretrained(...) puts one beside the weights"
        )
    if isinstance(spec, TokensSet):
        return tokens.load(
            spec,
            network.tokenizer,
            longest=tokens.longest_input(network.module),
            cache=cache,
            mark=mark,
        )
    return text.load(
        spec,
        network.tokenizer,
        label_names=network.outline.label_names,
        numbers="numbers" in metric_named(metric).measures,
        pad_token_id=network.pad_token_id,
        cache=cache,
        mark=mark,
        progress=progress,
    )
