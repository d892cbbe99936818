"""Weights that torch computes from parts at every forward pass: masked, normalised, parametrised, observed.

for together in parametrised(checkpoint):
    together.names                                       # parts whose mean is wrong, unless they are the same in all
"""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import TYPE_CHECKING

from soupcli.checkpoints.compare.weight_parts import Form, Together, joined, modules_of
from soupcli.checkpoints.dtype import Dtype
from soupcli.checkpoints.numbers import first_numbers, read_numbers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from soupcli.checkpoints.checkpoint import Checkpoint, TensorSpec
    from soupcli.checkpoints.compare.weight_parts import Module
    from soupcli.mixing.arithmetic.arrays import Array

NEVER = re.compile(r"(?!)")
CHUNK = 1 << 20  # elements that are looked at once
FACTOR = re.compile(
    r"scale|alpha|step_size|abs_?max|quant|(^|_)(s|delta|range|zp|shift|codebook|lut)$"
)  # of names beside whole numbers
GLANCE = 64  # elements that tell most weights from masks
FEW = 16  # elements of no weight
ORIGINALS = frozenset({"original", "original0"})  # weights of torch.nn.utils.parametrize
COMPUTES = re.compile(r"((?:.*\.)?parametrizations\.[^.]+)\.\d+\..*")  # a tensor of a step that computes a weight
REMOVE = "torch.nn.utils.parametrize.remove_parametrizations(module, 'weight')"


def _form(name: str, part_is: str, hint: str) -> Form:
    return Form(name, NEVER, None, hint, part_is)


PRUNED = _form(
    "pruned",
    "the mask of a pruned weight",
    "torch.nn.utils.prune.remove(module, 'weight') for every pruned module makes the weights whole; then save again",
)
MASK = _form("masked", "a mask of zeros and ones", "multiply each weight by its mask, and save the products")
SPECTRAL = _form(
    "spectral norm",
    "a part of a weight under spectral norm",
    f"torch.nn.utils.remove_spectral_norm(module), or {REMOVE}, makes the weights whole; then save again",
)
PARAMETRISED = _form(
    "parametrised",
    "a part of a weight that torch.nn.utils.parametrize computes",
    f"{REMOVE} for every such module makes the weights whole; then save again",
)
OBSERVED = _form(
    "observed",
    "counts that an observer of quantisation made over its own range",
    "--exclude '*histogram' leaves the counts out; or save the network before it was prepared for quantisation",
)
SCALED = _form(
    "scaled",
    "a scale of a quantised weight",
    "mix the networks from before quantisation, and quantise the soup",
)
WHOLE_NUMBERS = _form(
    "whole numbers",
    "a quantised weight: it holds whole numbers alone",
    "multiply them out, and save the products; or mix the networks from before quantisation",
)
MEASURED = "a scale that was measured on what the ingredient computes"


def _measured(patterns: str) -> Form:
    return _form(
        "measured",
        MEASURED,
        f"mix the networks from before calibration, and calibrate the soup; --take {patterns} takes the best one's "
        "until then",
    )


ACTIVATIONS = _measured("'*put_scale'")  # of optimum-quanto's modules
CACHE = _measured("'*[kv]_scale'")  # of keys and values
QUANTIZERS = _measured("'*_quantizer.*'")  # of NVIDIA ModelOpt
FAKE_QUANTISED = _measured("'*scale' --take '*zero_point'")  # of torch.ao, torchao


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
        yield from _of_scales(checkpoint, module, leaves)
        shapes = Counter(spec.shape for spec in leaves.values())
        for leaf, spec in leaves.items():
            name = joined(module, leaf)
            beside = len(spec.shape) > 1 and shapes[spec.shape] > 1  # all vectors of a norm have one shape
            if ("mask" in name.lower() or beside) and not originals and _has_zeros_and_ones(checkpoint, name, spec):
                yield Together(MASK, (name,))


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


def _of_scales(checkpoint: Checkpoint, module: str, leaves: Module) -> Iterator[Together]:
    """Yields scales of quantisation beside weights that are stored as floating numbers, and such whole numbers."""
    for form, names in (
        (ACTIVATIONS, leaves.keys() & {"input_scale", "output_scale"}),
        (CACHE, _single(leaves, ("k_scale", "v_scale"))),
        (SCALED, leaves.keys() & {"weight_scale", "weight_scale_inv", "weight_zero_point", "pre_quant_scale"}),
        (QUANTIZERS, leaves.keys() & {"_amax", "_pre_quant_scale"} if module.endswith("_quantizer") else set()),
        (FAKE_QUANTISED, leaves.keys() & {"scale", "zero_point"} if "fake_quant_enabled" in leaves else set()),
    ):
        if len(names) > (form is ACTIVATIONS):
            yield Together(form, tuple(joined(module, leaf) for leaf in sorted(names)))
    has_factor = any(FACTOR.search(leaf) for leaf in leaves)
    for leaf, spec in leaves.items():
        if (has_factor or leaf == "weight") and _holds_whole_numbers(
            checkpoint, joined(module, leaf), spec, has_factor
        ):
            yield Together(WHOLE_NUMBERS, (joined(module, leaf),))


def _single(leaves: Module, names: tuple[str, ...]) -> set[str]:
    """Return those of the names whose tensors exist and hold one number each."""
    return {name for name in names if name in leaves and leaves[name].numel == 1}


def _holds_whole_numbers(checkpoint: Checkpoint, name: str, spec: TensorSpec, has_factor: bool) -> bool:
    """Whether a matrix of floating numbers holds several whole ones and nothing else, and not only 0 and 1.

    Without a factor beside it they are -1, 0 and 1: signs of weights whose scale is elsewhere, such as in a norm.
    """
    if not spec.dtype.is_floating_point or len(spec.shape) < 2 or spec.numel <= FEW:
        return False
    if not all(number.is_integer() for number in first_numbers(checkpoint, name, FEW)):
        return False
    least, most = math.inf, -math.inf
    for part in _parts(checkpoint, name, spec):
        if not bool((part == part.round()).all()):
            return False
        least, most = min(least, float(part.min())), max(most, float(part.max()))
        if not has_factor and (least < -1 or most > 1):
            return False
    return least < 0 < most if not has_factor else least < most and (most > 1 or least < 0)


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
        and all(bool(((part == 0) | (part == 1)).all()) for part in _parts(checkpoint, name, spec))
    )


def _has_zeros_and_ones(checkpoint: Checkpoint, name: str, spec: TensorSpec) -> bool:
    """Whether a floating tensor holds both 0 and 1, and nothing else."""
    if not _holds_bits(checkpoint, name, spec):
        return False
    return 0 < sum(float(part.sum()) for part in _parts(checkpoint, name, spec)) < spec.numel


def _parts(checkpoint: Checkpoint, name: str, spec: TensorSpec) -> Iterator[Array]:
    for at in (0, *range(GLANCE, spec.numel, CHUNK)):
        yield read_numbers(checkpoint, name, at, min(CHUNK if at else GLANCE, spec.numel - at))
