"""Maps a checkpoint's names to a network's, if they differ by wrappers or by one common prefix.

fit_names(["model.fc.weight"], [["fc.weight"]])     # FittedNames({"model.fc.weight": "fc.weight"}, "model.", "")
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# What wrappers of modules call what they wrap. A network may have these names itself, so they are taken off both sides.
WRAPPERS = re.compile(
    r"(?:^|(?<=\.))(?:module|_module|_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module|_forward_module)\."
)


class FittedNames(NamedTuple):
    """Stored name -> name in the network. `removed` is the stored names' prefix, `added` the network's.

    `outside` are stored names without that prefix, of other parts such as a loss: the network has no place for them.
    """

    names: dict[str, str]
    removed: str = ""
    added: str = ""
    outside: tuple[str, ...] = ()

    @property
    def note(self) -> str | None:
        """A note for the user, or None if the names differ only by wrappers."""
        if self.removed:
            own = f"its names begin with {self.removed!r}, those of the network do not"
            more = f" and {len(self.outside) - 1} more" if len(self.outside) > 1 else ""
            rest = f"; {self.outside[0]}{more} beside it takes no part in the evaluation" if self.outside else ""
            return f"{own}: it is taken off to evaluate, the soup keeps it{rest}"
        if self.added:
            return f"names of the network begin with {self.added!r}, its own do not: it is put on to evaluate"
        return None


def fit_names(
    stored: Iterable[str], wanted: Sequence[Sequence[str]], optional: Iterable[str] = ()
) -> FittedNames | None:
    """Return the network's name for each stored name, or None if no rule makes them fit, or several do.

    `wanted` holds the names of each tensor of the network: several if it is shared. Each needs one that is stored;
    those of `optional` tensors may be absent.
    """
    own = _plain([*(name for names in wanted for name in names), *optional])
    plain = _plain(stored)
    if own is None or plain is None:
        return None
    needed = [[WRAPPERS.sub("", name) for name in names] for names in wanted]
    if _all_there(needed, plain, ""):
        return FittedNames(_matched(plain, own, "", ""))
    removed = _fitting_prefixes(needed, plain)
    if len(removed) == 1:
        outside = tuple(stored for name, stored in plain.items() if not name.startswith(removed[0]))
        return FittedNames(_matched(plain, own, removed[0], ""), removed[0], outside=outside)
    for prefix in _common_prefixes(needed) if not removed else ():
        if _all_there([[name.removeprefix(prefix) for name in names] for names in needed], plain, ""):
            return FittedNames(_matched(plain, own, "", prefix), added=prefix)
    return None


def several_prefixes(stored: Iterable[str], wanted: Sequence[Sequence[str]]) -> list[str]:
    """Return the prefixes under which stored names fit the network if there are several (`student.`, `teacher.`)."""
    needed = [[WRAPPERS.sub("", name) for name in names] for names in wanted]
    found = _fitting_prefixes(needed, _plain(stored) or {})
    return found if len(found) > 1 else []


def _fitting_prefixes(needed: Sequence[Sequence[str]], plain: dict[str, str]) -> list[str]:
    return [prefix for prefix in _prefixes(needed, plain) if _all_there(needed, plain, prefix)]


def _plain(names: Iterable[str]) -> dict[str, str] | None:
    """Name without wrappers -> name, or None if two would be one."""
    listed = list(names)
    plain = {WRAPPERS.sub("", name): name for name in listed}
    return plain if len(plain) == len(set(listed)) else None


def _all_there(needed: Sequence[Sequence[str]], plain: dict[str, str], prefix: str) -> bool:
    return all(any(prefix + name in plain for name in names) for names in needed)


def _prefixes(needed: Sequence[Sequence[str]], plain: dict[str, str]) -> list[str]:
    """Return the prefixes of stored names, found by the network's longest name, which has the fewest like it."""
    if not needed:
        return []
    names = max(needed, key=lambda names: len(max(names, key=len)))
    found = {name.removesuffix(own) for own in names for name in plain if name.endswith(f".{own}")}
    return sorted(prefix for prefix in found if prefix.endswith("."))


def _common_prefixes(needed: Sequence[Sequence[str]]) -> list[str]:
    """Prefixes that every name of the network has, whole steps each."""
    steps = [name.split(".") for names in needed for name in names]
    prefixes: list[str] = []
    for depth in range(1, min((len(each) for each in steps), default=0)):
        if any(each[:depth] != steps[0][:depth] for each in steps):
            break
        prefixes.append(".".join(steps[0][:depth]) + ".")
    return prefixes


def _matched(plain: dict[str, str], own: dict[str, str], removed: str, added: str) -> dict[str, str]:
    """Stored name -> name of the network, or itself if the network has none for it."""
    matched = {}
    for name, stored in plain.items():
        wanted = added + name.removeprefix(removed) if name.startswith(removed) else None
        matched[stored] = own.get(wanted, stored) if wanted is not None else stored
    return matched
