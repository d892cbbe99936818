"""Keys of scores, made of everything that determines them: set, network, weights, and how they are computed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soupcli.checkpoints.compare.class_orders import class_orders
from soupcli.checkpoints.side_files import files_beside
from soupcli.datasets import load as set_kinds
from soupcli.environment import MODULES, versions
from soupcli.errors import ValidationError
from soupcli.evaluation.outside import prints
from soupcli.files.json_text import key_of
from soupcli.files.manifest import HINT
from soupcli.metrics.library import is_of_library, version_of
from soupcli.metrics.table import metric_named
from soupcli.networks.configuration import configuration_files
from soupcli.progress import unsaid
from soupcli.recipe.sets import OutsideSet
from soupcli.user_code import openings
from soupcli.user_code.function import content_of
from soupcli.user_code.modules import is_users

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.datasets.holdout import SetPart
    from soupcli.evaluation.context import EvaluationContext
    from soupcli.files.manifest import Manifest
    from soupcli.mixing.mixture import Mixture


class Keys:
    """Keys of scores, logits and examples. Raises ValidationError for a set whose files are missing."""

    def __init__(self, context: EvaluationContext, tasks: object) -> None:
        self._context = context
        self._tasks = tasks
        self._described: dict[Path, list[list[str]]] = {}
        self._carried: dict[Path, list[list[str]]] = {}
        self._classes: dict[Path, dict[str, list[str]]] = {}
        self._checkouts = _checkouts(context.manifest)
        self.fingerprints = {name: self._fingerprint(name, context.manifest, context.warn) for name in context.sets}

    def of_score(self, name: str, weights: Mixture) -> str | None:
        """Return the key of a score, or None if something unknown determines it, such as a command of the user."""
        parts, metrics = self.of_outputs(name, weights), self._context.metrics_of(name)
        if parts is None:
            return None
        named = [_with_library(metric) for metric in metrics]
        return key_of({**parts, "batch_size": self._batch_size(name, metrics), "metrics": named})

    def of_outputs(self, name: str, weights: Mixture) -> dict[str, Any] | None:
        """Return everything that determines a network's outputs on a set, or None if something unknown does."""
        if self.fingerprints[name] is None:
            return None
        members = self.of_members(weights)
        recipe = self._context.recipe
        average = recipe.batch_norm == "average" or weights.is_one_network
        of_command = self._context.sets[name].writes_files
        return {
            "members": sorted(zip(members, weights.weights, strict=True), key=json.dumps),
            "coefficients": [members, dict(weights.coefficients)] if weights.coefficients else None,
            "kept": self._of_checkpoint(weights.kept),
            "dtype": str(weights.dtype),
            "set": self.fingerprints[name],
            "network": self.of_network(weights.kept),
            "batch_norm": None if average else [self.fingerprints[self._context.calibrating_set()[0]]],
            "device": self._context.device.type,
            "computing": [recipe.amp, recipe.channels_last, recipe.compile],
            "batch_size": self._batch_size(name),
            "versions": {**versions(), **self._checkouts},
            **({"written": self._written(weights.kept)} if of_command else {}),
        }

    def _written(self, kept: Checkpoint) -> list[Any]:
        """Return what determines the files that a command is given: their form, and those beside the weights."""
        recipe, folder = self._context.recipe, kept.side_folder
        form = [recipe.format, recipe.max_shard_size, recipe.keep_state, recipe.merge_adapters and kept.is_adapter]
        if folder is not None and folder not in self._carried:
            files = files_beside(folder, kept.files).files
            self._carried[folder] = [[file.name, self._print_of(file.path)] for file in files]
        return [form, [] if folder is None else self._carried[folder]]

    def _batch_size(self, name: str, metrics: Sequence[str] = ()) -> int | None:
        """The batch size, if the last digits of outputs may depend on it; None if these metrics do not see them.

        Recurrent layers, convolutions of single channels and others round an example by the size of its batch.
        """
        spec = self._context.sets[name]
        if not spec.batched:
            return None
        rounded_alike = self._context.device.type == "cpu" and not spec.padded
        counted = rounded_alike and bool(metrics) and all(metric_named(metric).counts for metric in metrics)
        return None if counted else self._context.recipe.batch_size

    def of_weights(self, weights: Mixture) -> str:
        """Return the identity of a mixture, for any set."""
        members, dtype = self.of_members(weights), str(weights.dtype)
        coefficients = dict(weights.coefficients) if weights.coefficients else None
        kept = self._of_checkpoint(weights.kept)
        return key_of({"of": [members, list(weights.weights), coefficients, dtype, kept]})

    def of_members(self, weights: Mixture) -> list[list[Any]]:
        """Return the identities of the members, in their order."""
        return [self._of_checkpoint(member) for member in weights.members]

    def _of_checkpoint(self, checkpoint: Checkpoint) -> list[Any]:
        """Return a checkpoint's content, the part that is read, the mixed tensors, and the source of all others."""
        chosen = sorted(checkpoint.taken) or None
        others = [self._of_checkpoint(other) for other in checkpoint.sources]
        beside = self._beside(checkpoint.folder)
        return [self._context.hashes.of(checkpoint), checkpoint.origin.key, chosen, beside, others]

    def of_contents(self, name: str, checkpoint: Checkpoint | None = None) -> str:
        """Return the key of a set's examples as the network of `checkpoint`, by default the first one, sees them."""
        network = self.of_network(checkpoint or self._context.first)
        return key_of({"set": self.fingerprints[name], "network": network})

    def of_network(self, checkpoint: Checkpoint) -> list[Any]:
        """Return everything that defines the network: recipe, user's files, settings and classes beside it."""
        spec, used = self._context.recipe.model, (checkpoint, *checkpoint.sources)
        beside = [[self._beside(one.folder), self._classes_of(one)] for one in used]
        if spec is None:
            return [None, beside]
        named = [[word, self._print_of(Path(word))] for word in _words(spec.args) if _is_file(word)]
        code = [self.of_function(reference) for reference in spec.code]
        return [spec.model_dump(mode="json", exclude=set(spec.code_keys)), named, code, beside]

    def of_function(self, reference: str) -> list[str]:
        """Return the identity of the function `file.py:function`. The manifest records what its file imports."""
        return content_of(reference, self._context.manifest.file)

    def _beside(self, folder: Path) -> list[list[str]]:
        """Return names and hashes of the files that describe a network or its inputs, in the folder of its weights.

        The checkpoint may be the folder or a file in it.
        """
        if folder not in self._described:
            files = configuration_files(folder)
            openings.pass_over(files)
            self._described[folder] = [[file.relative_to(folder).as_posix(), self._print_of(file)] for file in files]
        return self._described[folder]

    def _classes_of(self, checkpoint: Checkpoint) -> dict[str, list[str]]:
        """Return the orders of classes that any file beside the weights states, by which folders are counted."""
        if checkpoint.path not in self._classes:
            self._classes[checkpoint.path] = class_orders(checkpoint)
        return self._classes[checkpoint.path]

    def _print_of(self, file: Path) -> str:
        try:
            return self._context.manifest.file(file)
        except OSError as cause:
            raise ValidationError(f"{file}: {cause.strerror}") from cause

    def confirm_read(self, name: str, weights: Mixture) -> None:
        """Raises SoupError if what an evaluation of `weights` has read is not what the key of its score says.

        Sets that show examples are confirmed when they are loaded.
        """
        read = [one for member in (*weights.members, weights.kept) for one in (member, *member.sources)]
        self._context.hashes.confirm(read, at_end=False)
        for one in (weights.kept, *weights.kept.sources):
            known = self._described.pop(one.folder, None)
            if known is not None and self._beside(one.folder) != known:
                raise ValidationError(
                    f"{one.folder}/: files beside the weights changed while they were used", hint=HINT
                )
        if not self._context.sets[name].shows_examples:
            self.confirm(name)

    def confirm(self, name: str | None = None) -> None:
        """Raises ValidationError if the files of the set `name`, or of any set, have changed."""
        again = self._context.manifest.again()
        for one in self._context.sets if name is None else (name,):
            if self._context.sets[one].writes_files:
                continue
            if self._fingerprint(one, again, unsaid) != self.fingerprints[one]:
                raise ValidationError(f"val.{one}: its files changed while they were used", hint=HINT)

    def forget_if_changed(self, name: str) -> None:
        """Stop keeping a command's scores if its files have changed since the run began, and warn.

        So too of any set if a program of the user's code read a file that has changed since then.
        """
        known, spec = self.fingerprints[name], self._context.sets[name]
        if known is None or spec.shows_examples:
            return
        for path in self._context.manifest.changed_by_programs():
            self.fingerprints[name] = None
            self._context.warn(f"val.{name}: {path} changes while a program uses it: its scores are not kept")
        if not spec.writes_files:
            return
        if self._fingerprint(name, self._context.manifest.again(), unsaid) != known:
            self.fingerprints[name] = None
            self._context.warn(f"val.{name}: files of its command change while it is used: its scores are not kept")

    def _fingerprint(self, name: str, manifest: Manifest, warn: Callable[[str], None]) -> str | None:
        """Return the set's fingerprint, which does not depend on its path, or None if its scores cannot be kept."""
        spec = self._context.sets[name]
        if isinstance(spec, OutsideSet):
            return prints.fingerprint(name, spec, manifest, self._tasks, warn)
        return _of_part(set_kinds.fingerprint(spec, manifest, self._tasks), self._context.parts.get(name))


def _checkouts(manifest: Manifest) -> dict[str, str]:
    """Return prints of all code of libraries that are no installed packages: of a checkout the version says little."""
    found = {}
    for name in MODULES:
        try:
            spec = find_spec(name)
        except ValueError:  # a stand-in that somebody has put among the modules
            continue
        if spec is not None and spec.origin is not None and is_users(spec.origin):
            folder = Path(spec.origin).parent
            files = sorted(file for file in folder.rglob("*.py") if file.is_file())
            found[f"code of {name}"] = manifest.files([(str(file.relative_to(folder)), file) for file in files])
    return found


def _of_part(fingerprint: str | None, part: SetPart | None) -> str | None:
    """Return the fingerprint of a part of a set, from that of the whole."""
    return fingerprint if part is None else f"{fingerprint}:{json.dumps([part.share, part.held_out])}"


def _with_library(metric: str) -> str | list[str]:
    """Return the name of a metric, with the version of the library that defines it."""
    return [metric, version_of(metric)] if is_of_library(metric) else metric


def _words(args: Any) -> Iterator[str]:
    """Yield all texts in the arguments of a builder."""
    if isinstance(args, str):
        yield args
    elif isinstance(args, Mapping | list):
        for value in args.values() if isinstance(args, Mapping) else args:
            yield from _words(value)


def _is_file(word: str) -> bool:
    """Whether an argument of a builder names a file."""
    try:
        return bool(word) and Path(word).is_file()
    except (OSError, ValueError):
        return False
