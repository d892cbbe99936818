"""Names of tensors without the names that wrappers of modules put into them.

plain_names(["_orig_mod.a.w", "_orig_mod.b.w"])     # {"_orig_mod.a.w": "a.w", "_orig_mod.b.w": "b.w"}
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

# Names that only wrappers give to what they wrap: torch.compile, activation checkpointing, FSDP, Lightning Fabric.
# They come off wherever they stand, also in regular expressions of names.
_NAMES = "(?:_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module|_fpw_module|_forward_module)"
WRAPPERS = re.compile(rf"(?:^|(?<=\.)){_NAMES}\.")
WRAPPERS_IN_PATTERNS = re.compile(rf"(?<!\w){_NAMES}\\?\.")
# These may be names of a network's own: they come off if every name begins with them. DistributedDataParallel and
# DataParallel, Opacus.
PREFIXES = ("module.", "_module.")
# Of averages of models: torch's AveragedModel, mmengine's. They are no tensors of the network that is averaged.
EXTRA_STATE = "_extra_state"  # of a module, in whatever form it wants
COUNTERS = frozenset({"n_averaged", "steps"})


def plain_names(names: Iterable[str]) -> dict[str, str]:
    """Returns stored name -> name without wrappers. Counters of an averaged model are left out."""
    renamed = without_wrappers(names)
    while True:
        prefix = next((prefix for prefix in PREFIXES if _all_have(renamed, prefix)), None)
        if prefix is None:
            return renamed
        renamed = {name: plain.removeprefix(prefix) for name, plain in renamed.items() if plain not in COUNTERS}


def without_wrappers(names: Iterable[str]) -> dict[str, str]:
    """Return stored name -> name without names that only wrappers give, or unchanged if two would be equal."""
    renamed = {name: WRAPPERS.sub("", name) for name in names}
    return renamed if len(set(renamed.values())) == len(renamed) else {name: name for name in renamed}


def _all_have(renamed: Mapping[str, str], prefix: str) -> bool:
    names = [name for name in renamed.values() if not (name in COUNTERS and prefix == "module.")]
    return bool(names) and all(name.startswith(prefix) and name != prefix for name in names)
