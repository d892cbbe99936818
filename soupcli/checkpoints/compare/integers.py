"""Integers and booleans that differ between ingredients: which of them a soup may take from one.

check_integers(checkpoints, selection)                    # raises MixError for unknown ones

Integers have no mean, so a soup takes those of the best ingredient. That is right for counters, indices and attention
masks, and wrong for a weight.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from soupcli.checkpoints.checkpoint import weights_file
from soupcli.checkpoints.compare.differences import differing_integers, same_in_all
from soupcli.checkpoints.dtype import EIGHT_BITS
from soupcli.checkpoints.shell_patterns import matches
from soupcli.errors import MixError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soupcli.checkpoints.checkpoint import Checkpoint, TensorSpec
    from soupcli.checkpoints.tensor_filter import TensorFilter

FEW = 16  # elements: a weight has more, a counter or a flag has fewer
# Patterns of names -> what they are, and why one ingredient's will do.
KNOWN = {
    "*num_batches_tracked": "counts batches; it weighs only in training",
    "*n_averaged": "counts averaged networks; it weighs only in training",
    "*num_updates": "counts updates of an EMA; it weighs only in training",
    "*step": "counts steps; it weighs only in training",
    "*steps": "counts steps; it weighs only in training",
    "*epoch": "counts epochs; it weighs only in training",
    "*_ptr": "says where a queue goes on; it weighs only in training",
    "*_enabled": "turns observers on; it weighs only in training",
    "*position_ids": "numbers positions from 0",
    "*token_type_ids": "is 0 for every position",
    "*relative_position_index": "follows from the window's size",
    "*relative_position_bucket": "follows from the largest distance",
    "*relative_coords*": "follows from the window's size",
    "*rel_pos_ind*": "follows from the window's size",
    "*attn.bias": "is a causal mask, which follows from the longest text",
    "*attention.bias": "is a causal mask, which follows from the longest text",
    "*attn_mask": "follows from the window's size",
    "*attention_mask": "follows from the longest text",
    "*causal_mask": "follows from the longest text",
    "*_extra_state": "is a layer's own record of scales for training in fp8",
}
PATTERNS = tuple(KNOWN)
# Few as their elements may be, a difference in them makes averaged scales wrong.
NEVER = ("*zero_point", "*zero_points", "*qzeros")
# Several that say which rows, heads or channels a network has, or in what order: weights go with them.
CHOICES = re.compile(r"mask|perm|piv|(^|[._])(idx|index|indices|order)|kept|keep|select|channels|(^|[._])meta$")
ORDERS = re.compile(r"perm|order|shuffle|piv")  # of channels: weights of two orders have no mean


def is_known(name: str) -> bool:
    """Whether an integer tensor of this name is a counter, an index or a mask that any ingredient may give."""
    return matches(name, PATTERNS)


def reason_of(name: str) -> tuple[str, str] | None:
    """Return why any ingredient may give such a tensor, and the pattern of its name, or None if nothing is known."""
    return next(((why, pattern) for pattern, why in KNOWN.items() if matches(name, (pattern,))), None)


def is_incidental(name: str, spec: TensorSpec) -> bool:
    """Whether any ingredient may give such integers: what they are is known, or they are few and choose nothing."""
    chooses = spec.numel > 1 and CHOICES.search(name) is not None
    is_code = spec.dtype in EIGHT_BITS and sum(size > 1 for size in spec.shape) > 1  # of a small layer
    return is_known(name) or (spec.numel <= FEW and not chooses and not is_code and not matches(name, NEVER))


def check_integers(checkpoints: Sequence[Checkpoint], selection: TensorFilter) -> None:
    """Raises MixError at the first mixed integer tensor that differs and is not known to be harmless."""
    for name in differing_integers(checkpoints):
        spec = checkpoints[0].tensors[name]
        if is_incidental(name, spec) or not selection.mixes(name):
            continue
        other = next(one for one in checkpoints[1:] if not same_in_all([checkpoints[0], one], name))
        dtype = spec.dtype.value
        hint = (
            f"if one ingredient's will do, --take {name} takes the best one's; if these are quantised weights, "
            "dequantise them first"
        )
        if ORDERS.search(name):
            hint = "weights go with their order, and those of two orders have no mean: leave out the one that differs"
        raise MixError(
            f"{weights_file(other)}: tensor {name!r} ({dtype}, {spec.numel} elements) is not the same as in "
            f"{checkpoints[0].path}, and there is no mean of {'truth values' if dtype == 'bool' else 'integers'}",
            hint=hint,
        )
