"""Weights that torch computes from parts at every forward pass: masked, normalised, parametrised, observed.

for together in parametrised(checkpoint):
    together.names                                       # parts whose mean is wrong, unless they are the same in all
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from soupcli.checkpoints.compare.weight_parts import Form, Together, form_of_parts, joined, modules_of
from soupcli.checkpoints.dtype import Dtype
from soupcli.checkpoints.numbers import first_numbers, parts_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Set

    from soupcli.checkpoints.checkpoint import Checkpoint, TensorSpec
    from soupcli.checkpoints.compare.weight_parts import Module

FEW = 16  # elements of no weight
ORIGINALS = frozenset({"original", "original0"})  # weights of torch.nn.utils.parametrize
COMPUTES = re.compile(r"((?:.*\.)?parametrizations\.[^.]+)\.\d+\..*")  # a tensor of a step that computes a weight
REMOVE = "torch.nn.utils.parametrize.remove_parametrizations(module, 'weight')"

PRUNED = form_of_parts(
    "pruned",
    "the mask of a pruned weight",
    "torch.nn.utils.prune.remove(module, 'weight') for every pruned module makes the weights whole; then save again",
)
SPECTRAL = form_of_parts(
    "spectral norm",
    "a part of a weight under spectral norm",
    f"torch.nn.utils.remove_spectral_norm(module), or {REMOVE}, makes the weights whole; then save again",
)
PARAMETRISED = form_of_parts(
    "parametrised",
    "a part of a weight that torch.nn.utils.parametrize computes",
    f"{REMOVE} for every such module makes the weights whole; then save again",
)
OBSERVED = form_of_parts(
    "observed",
    "counts that an observer of quantisation made over its own range",
    "--exclude '*histogram' leaves the counts out; or save the network before it was prepared for quantisation",
)
SCALED = form_of_parts(
    "scaled",
    "a scale of a quantised weight",
    "mix the networks from before quantisation, and quantise the soup",
)
MEASURED = "a scale that was measured on what the ingredient computes"


def _measured(patterns: str) -> Form:
    return form_of_parts(
        "measured",
        MEASURED,
        f"mix the networks from before calibration, and calibrate the soup; --take {patterns} takes the best one's "
        "until then",
    )


ACTIVATIONS = _measured("'*put_scale'")  # of optimum-quanto's modules
CACHE = _measured("'*[kv]_scale'")  # of keys and values
QUANTIZERS = _measured("'*_quantizer.*'")  # of NVIDIA ModelOpt
FAKE_QUANTISED = _measured("'*scale' --take '*zero_point'")  # of torch.ao, torchao
OF_ACTIVATIONS = frozenset(("input_scale", "output_scale"))
OF_CACHE = frozenset(("k_scale", "v_scale"))
OF_WEIGHTS = frozenset(("weight_scale", "weight_scale_inv", "weight_zero_point", "pre_quant_scale"))
OF_QUANTIZERS = frozenset(("_amax", "_pre_quant_scale"))
OF_FAKES = frozenset(("scale", "zero_point"))
NAMED_SCALES = OF_ACTIVATIONS | OF_CACHE | OF_WEIGHTS | OF_QUANTIZERS | OF_FAKES


def parametrised(checkpoint: Checkpoint) -> Iterator[Together]:
    """Yield the parts of a checkpoint whose mean is wrong if they differ, recognised by names and numbers."""
    modules = modules_of(checkpoint.tensors)
    steps: dict[str, dict[str, TensorSpec]] = {}
    for name, spec in checkpoint.tensors.items():
        found = COMPUTES.fullmatch(name)
        if found is not None:
            steps.setdefault(found[1], {})[name] = spec
    for module, leaves in modules.items():
        originals = _originals(leaves)
        if originals:
            yield from _of_originals(checkpoint, module, leaves, steps.get(module, {}))
        elif "histogram" in leaves and "min_val" in leaves:
            yield Together(OBSERVED, (joined(module, "histogram"),))
        yield from _of_scales(module, leaves)


def weight_norms(checkpoint: Checkpoint) -> list[str]:
    """Return the names of magnitudes under weight norm whose directions are beside them."""
    pairs = (("_g", "_v"), (".original0", ".original1"))
    return [
        name
        for name in checkpoint.tensors
        if any(name.endswith(one) and name.removesuffix(one) + other in checkpoint.tensors for one, other in pairs)
    ]


def _of_originals(
    checkpoint: Checkpoint, module: str, leaves: Module, computed: dict[str, TensorSpec]
) -> Iterator[Together]:
    """Yields what goes together with the original weights of a module: what lies beside them, what is `computed`."""
    originals = _originals(leaves)
    shapes = {spec.shape for spec in originals.values()}
    beside = {joined(module, leaf): spec for leaf, spec in leaves.items() if leaf not in originals} | computed
    masks = tuple(name for name, spec in beside.items() if spec.shape in shapes and _is_mask(checkpoint, name, spec))
    if masks:
        yield Together(PRUNED, masks)
    vectors = tuple(name for name in beside if name.endswith(("_u", "_v")))
    if "original0" not in originals and any(name.endswith("_u") for name in vectors):
        yield Together(SPECTRAL, vectors)
    elif computed and not masks:
        yield Together(PARAMETRISED, tuple(computed))


def _of_scales(module: str, leaves: Module) -> Iterator[Together]:
    """Yields scales of quantisation beside weights that are stored as floating numbers."""
    for form, names in () if NAMED_SCALES.isdisjoint(leaves) else _named_scales(module, leaves):
        if len(names) > (form is ACTIVATIONS):
            yield Together(form, tuple(joined(module, leaf) for leaf in sorted(names)))


def _named_scales(module: str, leaves: Module) -> tuple[tuple[Form, set[str]], ...]:
    """Return the scales of a module that are known by their names, with what they are."""
    return (
        (ACTIVATIONS, leaves.keys() & OF_ACTIVATIONS),
        (CACHE, _single(leaves, OF_CACHE)),
        (SCALED, leaves.keys() & OF_WEIGHTS),
        (QUANTIZERS, leaves.keys() & OF_QUANTIZERS if module.endswith("_quantizer") else set()),
        (FAKE_QUANTISED, leaves.keys() & OF_FAKES if "fake_quant_enabled" in leaves else set()),
    )


def _single(leaves: Module, names: Set[str]) -> set[str]:
    """Return those of the names whose tensors exist and hold one number each."""
    return {name for name in names if name in leaves and leaves[name].numel == 1}


def _originals(leaves: Module) -> dict[str, TensorSpec]:
    return {leaf: spec for leaf, spec in leaves.items() if leaf.endswith("_orig") or leaf in ORIGINALS}


def _is_mask(checkpoint: Checkpoint, name: str, spec: TensorSpec) -> bool:
    """Whether a tensor holds only 0 and 1, or is called a mask."""
    return name.endswith("_mask") or spec.dtype == Dtype.BOOL or _holds_bits(checkpoint, name, spec)


def _holds_bits(checkpoint: Checkpoint, name: str, spec: TensorSpec) -> bool:
    """Whether a floating tensor holds only 0 and 1."""
    return (
        spec.dtype.is_floating_point
        and all(number in (0, 1) for number in first_numbers(checkpoint, name, FEW))
        and all(bool(((part == 0) | (part == 1)).all()) for part in parts_of(checkpoint, name))
    )
