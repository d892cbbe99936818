"""Weights stored in parts that only make sense together: quantised forms, and those of computed_weights.py.

check_products(checkpoints, selection)                    # raises MixError, with the call that gives whole weights

The means of the parts are not the parts of the mean. Parts are recognised by the files' content: narrow dtypes beside
scales, and names that only one library uses. Parts that are equal in all ingredients are harmless. A new form is one
row of FORMS.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soupcli.checkpoints.checkpoint import weights_file
from soupcli.checkpoints.compare.codes import coded, normalised, scaled_by_one, scaled_float8
from soupcli.checkpoints.compare.computed_weights import parametrised
from soupcli.checkpoints.compare.decompositions import decomposed
from soupcli.checkpoints.compare.differences import same_in_all
from soupcli.checkpoints.compare.factors import factorised
from soupcli.checkpoints.compare.integers import is_known
from soupcli.checkpoints.compare.weight_parts import (
    SEPARATORS,
    Form,
    Module,
    Together,
    is_called_factor,
    joined,
    modules_of,
)
from soupcli.checkpoints.dtype import EIGHT_BITS, Dtype
from soupcli.errors import MixError
from soupcli.files.json_text import parse_json
from soupcli.files.small_file import read_small

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint, TensorSpec
    from soupcli.checkpoints.tensor_filter import TensorFilter

# Of wider integers that hold several numbers each, or numbers of a table.
PACKED = re.compile(
    r"q_?weight|qzeros|qdata|int_data|_data|.*packed|codes|indices|.*_blocks|weight|trellis|Qidxs|dense_weights",
    re.IGNORECASE,
)
SCALE = re.compile(r"scale|absmax|scb|zero", re.IGNORECASE)
SCALES = re.compile(r"(inv_?)?scales?(_?inv)?", re.IGNORECASE)  # words of a name
OWN = re.compile(r"(^|[._])(weight|bias|gamma|beta|running_(mean|var))$")  # vectors of layers
BESIDE_WEIGHTS = re.compile(r"bias|running_(mean|var)")  # what lies beside a float8 weight that is whole
LOAD = "from_pretrained(FOLDER{}).save_pretrained(OTHER)"


def _form(name: str, part: str, beside: str | None, hint: str) -> Form:
    return Form(name, re.compile(part), re.compile(beside) if beside is not None else None, hint)


DEQUANTISE = "dequantise and save it first: "
BEFORE = "mix the networks from before quantisation, and quantise the soup"  # there is no way back
# Of GPTQModel 7, on a CPU too. Its other function of this name, for loaded networks, refuses AWQ.
GPTQ = "gptqmodel.utils.model_dequant.dequantize_model(FOLDER, NEW_FOLDER), of GPTQModel 7"
FORMS = (
    _form(
        "bitsandbytes",
        r"SCB|absmax|nested_absmax|quant_map|nested_quant_map|bitsandbytes__\w+",
        None,
        "transformers' model.dequantize(): AutoModelForCausalLM.from_pretrained(FOLDER).dequantize(), save_pretrained",
    ),
    _form("GPTQ or AWQ", "qweight", "qzeros", GPTQ),
    _form("EETQ", "q?weight", "weight_scales", BEFORE),
    _form("SVDQuant", "qweight", "wscales", BEFORE),
    _form("FP-Quant", "qweight", "forward_hadamard_matrix", BEFORE),
    _form("ExLlama", "q_weight|trellis", "q_scale|suh?", BEFORE),
    _form("QuIP", "Qidxs", "SU", BEFORE),
    _form("SpQR", "dense_weights", "row_offsets", BEFORE),
    _form("HIGGS", "weight", "tables2", "transformers' model.dequantize(), then save_pretrained"),
    _form("MLX", "weight", "q?biases", "mlx_lm.convert --hf-path FOLDER --mlx-path NEW_FOLDER --dequantize"),
    _form(
        "compressed-tensors",
        r"weight_packed|weight_shape|weight_global_scale",
        None,
        LOAD.format(", quantization_config=CompressedTensorsConfig(dequantize=True)"),
    ),
    _form("MXFP4", r".*_blocks", r".*_scales", LOAD.format(", quantization_config=Mxfp4Config(dequantize=True)")),
    _form("NVFP4", "weight_scale_2", None, BEFORE),
    _form(
        "torchao",
        r"(.*[_:])?(qdata|int_data)",
        r".*scale.*",
        "torchao: save {name: w.dequantize() if type(w).__module__.startswith('torchao') else w for name, w in "
        "model.state_dict().items()}; its int4 tensors have no dequantize(): take the network from before quantisation",
    ),
    _form("quanto", "_data", None, "optimum-quanto: QTensor.dequantize() of every weight, then save the state dict"),
    _form("HQQ", "W_q", None, "hqq: HQQLinear.dequantize() of every layer, then save the state dict"),
    _form("AQLM", "codes", "codebooks", BEFORE),
    _form("VPTQ", "indices", "centroids|perm|weight_scale", BEFORE),
    _form(
        "fp8 with scales",
        "weight",
        r"weight_scale_inv",
        LOAD.format(", quantization_config=FineGrainedFP8Config(dequantize=True)"),
    ),
)
ANY_FORM = Form("quantised", re.compile(""), None, "transformers' model.dequantize(), or the library that quantised it")
METHODS = {  # quant_method in config.json -> a form that says how it is undone
    "bitsandbytes": "bitsandbytes",
    "gptq": "GPTQ or AWQ",
    "awq": "GPTQ or AWQ",
    "auto-round": "GPTQ or AWQ",
    "compressed-tensors": "compressed-tensors",
    "mxfp4": "MXFP4",
    "nvfp4": "NVFP4",
    "modelopt": "NVFP4",
    "torchao": "torchao",
    "quanto": "quanto",
    "hqq": "HQQ",
    "aqlm": "AQLM",
    "vptq": "VPTQ",
    "fp8": "fp8 with scales",
    "eetq": "EETQ",
    "fp_quant": "FP-Quant",
    "exl2": "ExLlama",
    "exl3": "ExLlama",
    "spqr": "SpQR",
    "higgs": "HIGGS",
}


def quantised(tensors: Mapping[str, TensorSpec]) -> Iterator[Together]:
    """Yield the quantised weights among tensors, by names and dtypes."""
    modules = modules_of(tensors)
    if not _may_be_quantised(modules):
        return
    for module, leaves in modules.items():
        narrow = [leaf for leaf, spec in leaves.items() if _is_narrow(module, leaf, spec, leaves)]
        below = [modules[name] for name in (joined(module, leaf) for leaf in narrow) if name in modules]
        found = _form_of([leaves, *below])
        if found is None and not narrow and not _is_below_float8(module, leaves, tensors):
            continue
        parts = [leaf for leaf, spec in leaves.items() if _is_part(leaf, spec, found)]
        shown = narrow or [leaf for leaf in leaves if found is not None and found.part.fullmatch(leaf)]
        whole = [module] if module in tensors else []  # bitsandbytes' names of scales begin with the weight's own
        beside = parts or list(leaves)
        names = dict.fromkeys([*whole, *(joined(module, leaf) for leaf in (*shown, *beside))])
        yield Together(found or ANY_FORM, tuple(names))
    yield from _scaled_elsewhere(tensors)


def _joined_patterns(forms: Sequence[Form]) -> re.Pattern[str]:
    return re.compile("|".join(f"({form.part.pattern})" for form in forms))


ANY_PART = _joined_patterns(FORMS)
ANY_NAME = _joined_patterns([form for form in FORMS if form.beside is None])  # that is enough by itself


def _may_be_quantised(modules: Mapping[str, Module]) -> bool:
    """Whether a tensor may hold encoded numbers, or has a name of quantised weights. Most networks have none."""
    names = {leaf for leaves in modules.values() for leaf in leaves}
    coded = (_is_code(leaf, spec) for leaves in modules.values() for leaf, spec in leaves.items())
    return any(map(ANY_NAME.fullmatch, names)) or any(coded)


def _form_of(modules: Sequence[Module]) -> Form | None:
    """Return the first of FORMS that one of the modules is in."""
    told = {form.name for leaves in modules for leaf in leaves for form in _forms_of(leaf)}
    if not told:
        return None
    return next((form for form in FORMS if form.name in told and any(_has(form, each) for each in modules)), None)


@lru_cache(maxsize=1_000)
def _forms_of(leaf: str) -> tuple[Form, ...]:
    """Return the forms that a tensor may be a part of, by the last part of its name."""
    if ANY_PART.fullmatch(leaf) is None:
        return ()
    return tuple(form for form in FORMS if form.part.fullmatch(leaf))


def _scaled_elsewhere(tensors: Mapping[str, TensorSpec]) -> Iterator[Together]:
    """Yield float8 weights with a scale in another module: one of their name, `scales.fc` for `fc.weight`, or of all.

    A vector of scales for all has a number for each.
    """
    narrow = {name: spec for name, spec in tensors.items() if spec.dtype.is_averaged and spec.dtype.itemsize == 1}
    layers = [name for name, spec in narrow.items() if len(spec.shape) > 1]
    known = {SEPARATORS.sub("", part): name for name in narrow for part in (name.rpartition(".")[0], name) if part}
    for name, spec in tensors.items() if known else ():
        weight = known.get(SEPARATORS.sub("", SCALES.sub("", name))) if SCALE.search(name) and _is_wide(spec) else None
        if weight is not None and weight.rpartition(".")[0] != name.rpartition(".")[0]:
            yield Together(ANY_FORM, (weight, name))
        elif len(layers) > 1 and spec.numel == len(layers) and _is_wide(spec) and not OWN.search(name):
            yield Together(ANY_FORM, (*layers, name))


MAX_CONFIG = 10_000_000  # bytes
CONFIG_KEYS = ("quantization_config", "compression_config", "quantization")


def _has(form: Form, leaves: Module) -> bool:
    parts = [leaf for leaf in leaves if form.part.fullmatch(leaf)]
    narrow = form.beside is None or any(_is_code(leaf, leaves[leaf]) for leaf in parts)
    return bool(parts) and narrow and (form.beside is None or any(map(form.beside.fullmatch, leaves)))


def _is_code(leaf: str, spec: TensorSpec) -> bool:
    """Whether a tensor may hold encoded numbers: bytes, packed integers, float8."""
    if spec.dtype in EIGHT_BITS or (spec.dtype.is_averaged and spec.dtype.itemsize == 1):
        return True
    return not spec.dtype.is_averaged and spec.dtype != Dtype.BOOL and PACKED.fullmatch(leaf) is not None


def _is_part(leaf: str, spec: TensorSpec, form: Form | None) -> bool:
    """Whether a tensor is a part of the quantised weight of its module."""
    patterns = [form.part, form.beside] if form is not None else []
    named = any(pattern is not None and pattern.fullmatch(leaf) for pattern in patterns)
    return named or SCALE.search(leaf) is not None or _is_code(leaf, spec)


def _is_narrow(module: str, leaf: str, spec: TensorSpec, leaves: Module) -> bool:
    """Whether a tensor holds encoded numbers with their scale beside it."""
    if spec.numel < 2 or not _is_code(leaf, spec) or is_known(joined(module, leaf)) or SCALE.search(leaf):
        return False
    if not spec.dtype.is_averaged and leaf.endswith("weight"):
        return True
    others = [other for other in leaves if other != leaf]
    if not spec.dtype.is_averaged:
        return any(map(SCALE.search, others))
    return any(_is_float8_factor(leaf, other) for other in others if _is_wide(leaves[other]))


def _is_wide(spec: TensorSpec) -> bool:
    """Whether it holds floating numbers of more than eight bits."""
    return spec.dtype.is_floating_point and spec.dtype.itemsize > 1


def _is_float8_factor(leaf: str, other: str) -> bool:
    """Whether the wider tensor `other`, beside the float8 tensor `leaf`, may be what it is multiplied by."""
    if leaf == "weight":
        return BESIDE_WEIGHTS.fullmatch(other) is None
    if SCALE.search(other) and (leaf in other or re.match(r"_?(scale|scb)", other, re.I)):
        return True
    return is_called_factor(leaf, other)


def _is_below_float8(module: str, leaves: Module, tensors: Mapping[str, TensorSpec]) -> bool:
    """Whether these lie below a float8 tensor: `weight.descale` below `weight`."""
    above = tensors.get(module)
    return above is not None and _is_code("", above) and any(map(_is_wide, leaves.values()))


WRONG_MEANS = (coded, scaled_by_one, normalised, factorised, decomposed)  # find parts by their numbers


def check_products(checkpoints: Sequence[Checkpoint], selection: TensorFilter) -> None:
    """Raises MixError if a weight is stored in parts that are mixed and differ between checkpoints."""
    if len(checkpoints) < 2:
        return
    packed = [(one, together) for one in _other_headers(checkpoints) for together in quantised(one.tensors)]
    if not packed:
        _check_declared(checkpoints)
    for checkpoint, together in chain(packed, ((one, each) for one in checkpoints for each in parametrised(one))):
        if _is_mixed(together, checkpoints, selection):
            raise _refused(checkpoint, together)
    for together in chain.from_iterable(find(checkpoints, selection) for find in WRONG_MEANS):
        raise _refused(checkpoints[1], together)
    for name in scaled_float8(checkpoints[0], selection):
        if not same_in_all(checkpoints, name):
            raise _refused(checkpoints[0], Together(ANY_FORM, (name,)))


def _other_headers(checkpoints: Sequence[Checkpoint]) -> Iterator[Checkpoint]:
    """Yield the checkpoints whose names, shapes or dtypes are not those of the one before. Most families have one."""
    before: Mapping[str, TensorSpec] | None = None
    for checkpoint in checkpoints:
        if checkpoint.tensors != before:
            yield checkpoint
        before = checkpoint.tensors


def _declared(checkpoint: Checkpoint) -> tuple[Path, str] | None:
    """Return the configuration beside a checkpoint that declares quantisation, and its method."""
    for file in checkpoint.side_files:
        if file.name in ("config.json", "hf_quant_config.json") and file.stat().st_size <= MAX_CONFIG:
            found = _method(file)
            if found is not None:
                return file, found
    return None


def _method(file: Path) -> str | None:
    try:
        config: Any = parse_json(read_small(file, most=MAX_CONFIG))
    except (OSError, ValueError, RecursionError):
        return None
    parts = [config, *config.values()] if isinstance(config, dict) else []
    for part in parts:
        found = next((part[key] for key in CONFIG_KEYS if part.get(key)), None) if isinstance(part, dict) else None
        if found is not None:
            return str(found.get("quant_method") or found.get("quant_algo") or "") if isinstance(found, dict) else ""
    return None


def _by_method(method: str) -> Form:
    return next((form for form in FORMS if form.name == METHODS.get(method)), ANY_FORM)


def _check_declared(checkpoints: Sequence[Checkpoint]) -> None:
    """Raises MixError if a configuration declares quantised weights."""
    declared = {one: _declared(one) for one in checkpoints}
    found = next(((one, said) for one, said in declared.items() if said is not None), None)
    if found is None:
        return
    (file, method) = found[1]
    form = _by_method(method)
    raise MixError(
        f"{file}: quantization_config says that these are quantised weights{f' ({method})' if method else ''}",
        hint=f"{_way_out(form)}; if they are whole weights, take quantization_config out of {file.name}",
    )


def _is_mixed(together: Together, checkpoints: Sequence[Checkpoint], selection: TensorFilter) -> bool:
    return any(map(selection.mixes, together.names)) and not all(
        same_in_all(checkpoints, name) for name in dict.fromkeys(together.names)
    )


def _refused(checkpoint: Checkpoint, together: Together) -> MixError:
    form, name = together.form, together.names[0]
    if form.part_is:
        return MixError(
            f"{weights_file(checkpoint)}: tensor {name!r} is {form.part_is}, and is not the same in all: the mean of "
            "the parts is not the mean of the weights",
            hint=form.hint.replace("{name}", name),
        )
    dtype = checkpoint.tensors[name].dtype.value
    declared = _declared(checkpoint) if form is ANY_FORM else None
    form = _by_method(declared[1]) if declared is not None else form
    named = "" if form is ANY_FORM else f" ({form.name})"
    return MixError(
        f"{weights_file(checkpoint)}: tensor {name!r} ({dtype}) is a quantised weight{named}: its numbers mean "
        "something only with their scales",
        hint=_way_out(form),
    )


def _way_out(form: Form) -> str:
    return form.hint if form.hint == BEFORE else DEQUANTISE + form.hint
