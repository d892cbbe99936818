"""What to do about tensors of other shapes: another head, other inputs, another network.

hint_for_shapes(first, other, "head.weight")              # "...: --exclude 'head.*' mixes all but them"
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from soupcli.checkpoints.compare.integers import reason_of

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint, TensorSpec

# Names of tables with a row for each token, and for each position.
TOKENS = re.compile(
    r"(?!.*(patch|pixel|time|type)).*(embed|(^|\.)wte\.|(^|[._])emb\.|lm_head|(^|\.)shared\.weight$)", re.IGNORECASE
)
POSITIONS = re.compile(r"pos(ition)?s?([._]|$|_?emb|_?enc)|relative_position|(^|\.)wpe\.", re.IGNORECASE)
MOST_HEADS = 4
LEAVE_OUT = "these are different networks: leave out the one that differs"


def is_of_inputs(name: str) -> bool:
    """Whether a tensor has rows for tokens or positions, by its name, and so is no head for classes."""
    return TOKENS.match(name) is not None or POSITIONS.search(name) is not None


def hint_for_shapes(first: Checkpoint, other: Checkpoint, name: str) -> str:
    """Return what to do if the tensor `name`, and maybe others, have another shape in `other`.

    A hint never names more than what differs: what it leaves out of the mean comes from one ingredient.
    """
    unlike = [each for each, spec in first.tensors.items() if _differs(spec, other.tensors.get(each))]
    masks = [each for each in unlike if _is_mask(each, first.tensors[each], other.tensors[each])]
    known = reason_of(name)
    if masks == unlike and known is not None:
        return f"it {known[0]}: --exclude '{known[1]}' takes it from one ingredient"
    if POSITIONS.search(name):
        return f"{LEAVE_OUT}: networks for inputs of other sizes have other positions"
    spec, expected = other.tensors[name], first.tensors[name]
    if spec.shape[1:] == expected.shape[1:] and len(spec.shape) == 2 and TOKENS.match(name):
        return (
            "these have vocabularies of other sizes: give all one tokenizer, and the rows for it "
            "(model.resize_token_embeddings), or leave out the one that differs"
        )
    heads = _heads(first, other, unlike)
    if not heads:
        return LEAVE_OUT
    excluded = " ".join(f"--exclude '{pattern}'" for pattern in heads)
    return f"{LEAVE_OUT}; or heads for different classes: {excluded} mixes all but them"


def has_other_rows(one: TensorSpec, other: TensorSpec) -> bool:
    """Whether shapes are the same but for the number of rows, as those of output layers are."""
    return len(one.shape) > 0 and len(other.shape) > 0 and one.shape[1:] == other.shape[1:]


def _differs(spec: TensorSpec, found: TensorSpec | None) -> bool:
    return found is not None and found.shape != spec.shape


def _is_mask(name: str, one: TensorSpec, other: TensorSpec) -> bool:
    """Whether this is a known constant of pairs of positions, so that its size is that of the longest input."""
    squares = all(len(spec.shape) > 1 and spec.shape[-1] == spec.shape[-2] for spec in (one, other))
    return squares and reason_of(name) is not None and not POSITIONS.search(name)


def _heads(first: Checkpoint, other: Checkpoint, unlike: list[str]) -> list[str]:
    """Return patterns of the layers that differ, if they can be output layers.

    Those have another number of rows, and no layer reads them, so that nothing else differs.
    """
    patterns: dict[str, None] = {}
    for name in unlike:
        spec, expected = other.tensors[name], first.tensors[name]
        if not has_other_rows(spec, expected) or is_of_inputs(name):
            return []
        patterns[name.rpartition(".")[0]] = None
    inside = [name for name in first.tensors if any(name.startswith(f"{module}.") for module in patterns if module)]
    if len(patterns) > MOST_HEADS or any(name not in unlike for name in inside):
        return []
    return [f"{module}.*" for module in patterns if module] + [name for name in unlike if "." not in name]
