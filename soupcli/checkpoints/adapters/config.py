"""Reads adapter_config.json of a LoRA adapter: its base, its scales, and whether its mean can be exact.

Format: PEFT's LoraConfig. A layer computes W x + s B A x with s = lora_alpha / r, or lora_alpha / sqrt(r) with rsLoRA
(Hu et al. 2021, arXiv:2106.09685; Kalajdzievski 2023, arXiv:2312.03732).
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

from soupcli.checkpoints.formats.names import WRAPPERS_IN_PATTERNS
from soupcli.errors import CheckpointError
from soupcli.files.json_text import finite, parse_json
from soupcli.files.reading import FileVersion, read_bytes
from soupcli.wording import HUB_ID

CONFIG = "adapter_config.json"
MERGE = "merge each adapter into its base (merge_and_unload) and mix the whole networks"
# Adapters of the inputs, or of several others: no weights of the base hold what they do.
UNMERGED = re.compile(r".*(PROMPT|PREFIX)_TUNING|P_TUNING|ADAPTION_PROMPT|CPT|CARTRIDGE|XLORA|POLY")
MAX_BYTES = 10_000_000
MAX_PATTERN = 400  # characters: patterns are regular expressions, and come from the file
MOST_PATTERNS = 5000
MOST_STEPS = 100_000_000  # of all searches with patterns that can match many ways, as estimated
# What a pattern may repeat without many ways to match: a digit. And a group that it repeats: ways without end.
DIGITS = re.compile(r"(\\d|\[0-9\]|\[\\d\])([*+]\??|\{[\d,]*\}\??)")
REPEATED = re.compile(r"(?<!\\)[*+{]")
REPEATED_GROUP = re.compile(r"(?<!\\)\)[*+{]")
# Settings under which a layer is no longer W + s B A, or W no longer the base's.
UNMIXABLE = (
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "layer_replication",
)
# The other settings of PEFT 0.21's LoraConfig and of older ones: with them a layer is W + s B A.
PLAIN = (
    *("task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
    *("inference_mode", "runtime_config", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern"),
    *("lora_bias", "bias", "fan_in_fan_out", "merge_weights", "enable_lora", "ensure_weight_tying"),
    *("target_modules", "exclude_modules", "modules_to_save", "layers_to_transform", "layers_pattern"),
    *("lora_dropout", "init_lora_weights", "loftq_config", "eva_config", "corda_config", "lora_ga_config"),
    *("megatron_config", "megatron_core", "velora_config", "qalora_group_size"),
)
NAMING = ("target_modules", "exclude_modules", "modules_to_save", "layers_pattern")  # settings that name modules
# Initialisations that change the base's own weights: B A is then relative to weights that no file holds.
REBASING = re.compile(r"(pissa|corda|olora|loftq|lora_ga)", re.IGNORECASE)


@dataclass(frozen=True)
class AdapterConfig:
    """The settings of one adapter, checked."""

    file: FileVersion
    values: Mapping[str, Any]
    steps: list[int] = field(default_factory=lambda: [0], compare=False)  # that its patterns have taken so far

    @property
    def base(self) -> str | None:
        """Name or folder of the network that it was trained on."""
        return self.values.get("base_model_name_or_path") or None

    @property
    def unknown(self) -> dict[str, str]:
        """Settings that are on and that nobody here knows, with their values: a layer may not be W + s B A."""
        return {name: _short(value) for name, value in self.values.items() if value and name not in PLAIN}

    @property
    def base_on_hub(self) -> Path | None:
        """The model of the Hub that it was trained on, with its revision; None if it names none."""
        named, revision = self.base, self.values.get("revision")
        word = f"{named}@{revision}" if named is not None and isinstance(revision, str) and revision else named
        return Path(word) if word is not None and HUB_ID.fullmatch(word) is not None else None

    @property
    def way_to_base(self) -> str:
        """A hint for somebody who lacks the base."""
        if self.base is not None and HUB_ID.fullmatch(self.base) is not None:
            return f"--base {self.base} takes it from the Hub; or --base PATH names the network"
        return "--base names the network that the adapters were trained on: a path, or a model of the Hub"

    def scale(self, module: str, rank: int) -> Fraction:
        """The factor s of `module`, whose A has `rank` rows. Raises CheckpointError if the ranks disagree."""
        said = self._for_module("rank_pattern", module, self.values.get("r"))
        if said != rank:
            raise CheckpointError(
                f"{self.file.path}: says that {module} has rank {said}, its tensors have {rank}",
                hint="the two files are of different adapters: put the right adapter_config.json there",
            )
        alpha = self._for_module("alpha_pattern", module, self.values.get("lora_alpha"))
        if finite(alpha) is None:
            raise CheckpointError(
                f"{self.file.path}: lora_alpha of {module} is {alpha!r}, not a number",
                hint="write the lora_alpha that it was trained with",
            )
        if self.values.get("use_rslora"):
            return Fraction(alpha / math.sqrt(rank))
        return Fraction(alpha) / rank

    def _for_module(self, name: str, module: str, default: object) -> Any:
        """Return the value for `module`: that of the first pattern that matches the end of its name, as PEFT does.

        Wrappers' names come off the patterns, as they do off the names of modules. Raises CheckpointError if the
        patterns, which a stranger may have written, could take very long.
        """
        patterns = self.values.get(name)
        for key, value in patterns.items() if isinstance(patterns, Mapping) else ():
            if isinstance(key, str) and len(key) <= MAX_PATTERN:
                plain = _plain(key)
                self.steps[0] += _steps(plain, module)
                if self.steps[0] > MOST_STEPS:
                    raise CheckpointError(
                        f"{self.file.path}: {name} has patterns that take too long to match, such as {_short(key)}",
                        hint="write the names of modules, such as layers.0.q_proj, in place of the patterns",
                    )
                if _fits(plain, module):
                    return value
        return default


def read_adapter_config(folder: Path) -> AdapterConfig:
    """Return the settings in `folder`.

    Raises CheckpointError if they cannot be read, or if they say that the adapter is not W + s B A.
    """
    file = FileVersion.of(folder / CONFIG)
    values: Any = None
    if file.size <= MAX_BYTES:
        try:
            values = parse_json(read_bytes(file, 0, file.size))
        except (ValueError, RecursionError) as cause:
            raise CheckpointError(
                f"{file.path}: not JSON: {cause}", hint="it is damaged: save the adapter again, or leave it out"
            ) from cause
    if not isinstance(values, dict):
        raise CheckpointError(f"{file.path}: not a JSON object of at most {MAX_BYTES} bytes")
    kind = values.get("peft_type")
    if kind != "LORA":
        raise CheckpointError(
            f"{file.path}: a {kind} adapter, only LORA adapters are mixed",
            hint="leave it out: it cannot be merged into its base" if UNMERGED.fullmatch(str(kind)) else MERGE,
        )
    for name in UNMIXABLE:
        if values.get(name):
            raise CheckpointError(
                f"{file.path}: {name} is {_short(values[name])}: the mean of such adapters is not an adapter",
                hint=MERGE,
            )
    for name in ("rank_pattern", "alpha_pattern"):
        if isinstance(values.get(name), Mapping) and len(values[name]) > MOST_PATTERNS:
            raise CheckpointError(
                f"{file.path}: {name} has {len(values[name])} patterns, at most {MOST_PATTERNS} are read", hint=MERGE
            )
    start = values.get("init_lora_weights")
    if isinstance(start, str) and REBASING.match(start):
        raise CheckpointError(
            f"{file.path}: init_lora_weights is {start!r}, which changes the base when it is loaded",
            hint="save it as an adapter of the unchanged base: "
            "save_pretrained(folder, path_initial_model_for_weight_conversion=...)",
        )
    return AdapterConfig(file, values)


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _plain(names: Any) -> Any:
    """Return a name, a pattern or a list of such without wrappers' names; anything else as it is."""
    if isinstance(names, list):
        return [_plain(name) for name in names]
    return WRAPPERS_IN_PATTERNS.sub("", names) if isinstance(names, str) else names


@lru_cache(maxsize=MOST_PATTERNS)  # of many modules, each is matched with every pattern
def _ways(key: str) -> float:
    """Return how many repeats of a pattern can share a text in many ways; infinity if one lies in another."""
    key = DIGITS.sub("0", key)
    return math.inf if REPEATED_GROUP.search(key) or r"\1" in key else len(REPEATED.findall(key))


def _steps(key: str, module: str) -> int:
    """Return about how many steps a search may take: one for each way to share the name among the repeats."""
    ways = _ways(key)
    if ways == math.inf:
        return MOST_STEPS + 1
    return int((module.count(".") + 1) * len(module) ** ways // math.factorial(int(ways))) if ways < 20 else MOST_STEPS


@lru_cache(maxsize=MOST_PATTERNS)
def _compiled(key: str) -> re.Pattern[str] | None:
    try:
        return re.compile(rf"(.*\.)?({key})$")
    except (re.error, OverflowError, RecursionError):
        return None


def _fits(key: str, module: str) -> bool:
    pattern = _compiled(key)
    return pattern is not None and pattern.match(module) is not None


def soup_config(values: Mapping[str, Any], modules: Mapping[str, tuple[int, Fraction]]) -> dict[str, Any]:
    """The settings of an adapter made from those that `values` are of, whose `modules` have a rank and an alpha."""
    ranks = {module: rank for module, (rank, _) in modules.items()}
    alphas = {module: _number(alpha) for module, (_, alpha) in modules.items()}
    r, alpha = _commonest(ranks.values()), _commonest(alphas.values())
    changed: dict[str, Any] = {
        "r": r,
        "lora_alpha": alpha,
        "rank_pattern": {_exactly(m, modules): rank for m, rank in ranks.items() if rank != r},
        "alpha_pattern": {_exactly(m, modules): number for m, number in alphas.items() if number != alpha},
        "use_rslora": False,
        "init_lora_weights": True,
        "inference_mode": True,
    }
    spent: dict[str, Any] = {"loftq_config": {}, "eva_config": None, "corda_config": None, "lora_ga_config": None}
    named = {name: _plain(values[name]) for name in NAMING if name in values}
    return {**values, **named, **{name: empty for name, empty in spent.items() if name in values}, **changed}


def _number(alpha: Fraction) -> int | float:
    return int(alpha) if alpha.denominator == 1 else float(alpha)


def _commonest(values: Iterable[Any]) -> Any:
    return min(Counter(values).items(), key=lambda item: (-item[1], item[0]))[0]


def _exactly(module: str, modules: Iterable[str]) -> str:
    """Return a pattern that matches only `module`: its name, unless another name ends with it."""
    return f"^{re.escape(module)}" if any(other.endswith(f".{module}") for other in modules) else module
