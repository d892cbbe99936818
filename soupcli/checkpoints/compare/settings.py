"""Compares the files beside the weights: networks with different inputs have different weights.

for setting in differing_settings(checkpoints):
    setting.key, setting.values, setting.of_inputs         # preprocessor_config.json: image_mean
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from soupcli.checkpoints.checkpoint import remembered
from soupcli.checkpoints.compare.class_files import files_of
from soupcli.checkpoints.compare.compared_files import COLBERT, SCHEDULER, compared_files
from soupcli.checkpoints.compare.documents import document_of
from soupcli.checkpoints.formats.own_settings import settings_in
from soupcli.checkpoints.formats.setting_words import kind_of
from soupcli.checkpoints.formats.statistics_files import is_statistics, statistics_in
from soupcli.checkpoints.shell_patterns import matches
from soupcli.errors import CheckpointError
from soupcli.files.json_text import parse_json
from soupcli.files.reading import FileVersion
from soupcli.files.small_file import read_small

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.checkpoints.formats.setting_words import Kind

LARGEST = 1 << 26  # bytes of a file that is read; a larger one is compared by its size
MAX_BYTES = 1_000_000  # of a file that is looked into; larger ones are compared by their hash
LONGEST_KEY, LONGEST_VALUE = 2_000, 1_000  # letters; a file with longer keys is compared by its hash, a value too
# Notes of the library that wrote the file, with no meaning for the network.
NOTES = (
    *("_name_or_path", "name_or_path", "_commit_hash", "*_version", "__version__", "version", "torch_dtype", "dtype"),
    "auto_map*",
    *("tokenizer_class", "tokenizer_file", "special_tokens_map_file", "processor_class", "*processor_type"),
    *("feature_extractor_type", "backend", "is_local", "use_cache", "local_files_only", "*_extra_id_type"),
)
# Files all of whose settings are about inputs, and keys that are wherever they stand.
FILES_OF_INPUTS = (
    *(
        "*processor_config.json",
        "*tokenizer*",
        "special_tokens_map.json",
        "added_tokens.json",
        "*vocab*",
        "tekken.json",
    ),
    *("merges.txt", "*.model", "*.tiktoken", "chat_template*", "dict*.txt", "*.spm", "*.codes", "*.bpe"),
    *("tokens.txt", "symbols.txt", "words.txt", "units.txt", "lexicon*.txt"),
)
KEYS_OF_INPUTS = (
    *("*image_size*", "*.mean", "*.mean.*", "*.std", "*.std.*", "*_mean*", "*_std*", "*input_size*"),
    *("*interpolation*", "*crop_*", "*resample*", "*preprocess_cfg*", "id2label*", "label2id*"),
    *("prompts", "prompts.*", "default_prompt_name"),
    *("input_features*", "output_features*", "normalization_mapping.*"),
)
MAPS_IN_ORDER = ("input_features", "output_features")  # of LeRobot: what a policy sees and does, in this order
# In this file: what a text begins and ends with. Versions of transformers write more or fewer of these keys.
GENERATION = "generation_config.json"
KEYS_OF_GENERATION = ("*_token_id", "language", "task", "forced_decoder_ids", "lang_to_id.*", "task_to_id.*")
# Files that say what a network computes, and their keys that matter only while it is trained or saved.
FILES_OF_NETWORKS = (
    *("config.json", "open_clip_config.json", "*model_config.json", "head_config.json", "gliner_config.json"),
    *("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "config_setfit.json"),
    *("model_index.json", "router_config.json"),
)
# Keys of networks that look like those of training: the class of diffusers, the similarity of sentence-transformers.
KEYS_OF_NETWORKS = ("_class_name", "similarity_fn_name")
# Files with many other settings -> those of the network: what it was trained to predict of what, of diffusers; how
# texts are compared, of ColBERT.
KEYS_OF_FILES = {
    SCHEDULER: ("prediction_type", "beta_*", "num_train_timesteps", "rescale_betas_zero_snr"),
    COLBERT: ("similarity", "*_maxlen", "*_token", "*_token_id", "mask_punctuation", "attend_to_*", "interaction"),
}
MODULES = "modules.json"  # without it a folder is no sentence-transformer: it is pooled otherwise
KEYS_OF_TRAINING = (
    *("*dropout*", "*drop_*", "*_drop", "*_pdrop", "*dropped*", "init*", "*_init*", "*_loss*", "*loss_*", "layerdrop"),
    *("gradient_checkpointing", "output_*", "return_dict", "problem_type", "finetuning_task", "mask_*", "*_mask_*"),
    *("apply_spec_augment", "label_smoothing*", "summary_*dropout*", "architectures", "_attn_implementation*"),
    *("*seed", "lr", "*learning_rate", "*epochs", "*_steps", "*batch_size", "warmup*", "*_dir"),
    *("lr_*", "eval_*", "save_*", "train_*", "val_*", "freeze*", "fine_tune", "scheduler_type", "shuffle_*", "*_path"),
    *("loss*", "*_neg_*", "*negatives*", "size_sup", "*weight_decay*", "name", "scheduler"),
    *("device", "repo_id", "private", "push_to_hub", "use_amp", "use_peft", "optimizer_*", "scheduler_*", "kl_weight"),
    *("pretrained_cfg.*", "task_specific_params.*", "torchscript", "license", "tags", "url", "*hub_id", "*_name"),
)
OF_JSON = (".json", ".metadata")
ABSENT, PRESENT = "missing", "present"
IN_FILE = "in the file"  # of the weights


class Setting(NamedTuple):
    """A setting that differs between checkpoints, with its value for each."""

    key: str  # file: key.with.dots
    values: tuple[str, ...]  # in the order of the checkpoints
    of_inputs: bool  # whether it says what the network sees, or what its outputs are called
    of_network: bool = False  # whether it may change what the network computes


def differing_settings(checkpoints: Sequence[Checkpoint]) -> list[Setting]:
    """Return every differing setting of the side files, sorted. A file that some lack counts as one setting."""
    known = [dict(_settings(compared_files(checkpoint))) for checkpoint in checkpoints]
    files = [{key.partition(": ")[0] for key in settings} for settings in known]
    found: dict[Setting, None] = {}
    for key in sorted({key for settings in known for key in settings}):
        file, _, name = key.partition(": ")
        if not all(file in present for present in files):
            key, name = file, ""
        values = tuple(
            settings.get(key, ABSENT) if name else (PRESENT if file in present else ABSENT)
            for settings, present in zip(known, files, strict=True)
        )
        if len(set(values)) > 1:
            # A missing key has the library's own value; a network without its code or its modules has none.
            of_network = file.endswith(".py") or key == MODULES or (ABSENT not in values and _of_network(file, name))
            of_inputs = _of_inputs(file, name) or (ABSENT not in values and _of_texts(file, name))
            found[Setting(key, values, of_inputs, of_network)] = None
    return [*found, *_of_trainings(checkpoints)]


def _of_trainings(checkpoints: Sequence[Checkpoint]) -> list[Setting]:
    """Return the settings of networks and inputs that differ in the files of weights and of trainings.

    What only some say is no difference: others may have the same by default.
    """
    known = [_own_settings(checkpoint) for checkpoint in checkpoints]
    found = []
    for key in dict.fromkeys(key for settings in known for key in settings):
        values = tuple(settings[key][0] if key in settings else ABSENT for settings in known)
        if len({*values} - {ABSENT}) > 1:
            kind = next(settings[key][1] for settings in known if key in settings)
            found.append(Setting(key, values, kind == "inputs", kind == "network"))
    return found


@remembered(256)  # warnings ask twice
def _own_settings(checkpoint: Checkpoint) -> dict[str, tuple[str, Kind | None]]:
    """Return the settings by their file and key, with what they are about."""
    found: dict[str, tuple[str, Kind | None]] = {
        f"{IN_FILE}: {key}": (value, kind_of(key) or "network") for key, value in checkpoint.origin.settings.items()
    }
    compared = compared_files(checkpoint)
    for label, file in files_of(checkpoint).items():
        if label in compared or file in compared.values():
            continue
        above = file.stem.replace(".", "_")
        for key, value in settings_in(document_of(file), named=above).items():
            found[f"{label}: {key.removeprefix(f'{above}.')}"] = value, kind_of(key)
        if is_statistics(file.name):
            found |= {f"{label}: {key}": (value, "inputs") for key, value in _statistics_in(file).items()}
    return found


def _statistics_in(file: Path) -> dict[str, str]:
    """Return the statistics in a file by their keys; none of a broken one, which whoever needs it says."""
    try:
        return statistics_in(FileVersion.of(file))
    except (OSError, ValueError, LookupError, ArithmeticError, struct.error, RecursionError, CheckpointError):
        return {}


def _of_inputs(file: str, name: str) -> bool:
    return matches(file.rpartition("/")[2], FILES_OF_INPUTS) or matches(name, KEYS_OF_INPUTS)


def _of_texts(file: str, name: str) -> bool:
    """Whether a setting says what a text begins and ends with."""
    return file.rpartition("/")[2] == GENERATION and matches(name, KEYS_OF_GENERATION)


def _of_network(file: str, name: str) -> bool:
    stem = file.rpartition("/")[2]
    if stem in KEYS_OF_FILES:
        return matches(name, KEYS_OF_FILES[stem])
    if not name or not matches(stem, FILES_OF_NETWORKS) or _of_inputs(file, name):
        return False
    return name in KEYS_OF_NETWORKS or not any(matches(part, KEYS_OF_TRAINING) for part in (name, _last(name)))


def _settings(files: Mapping[str, Path]) -> Iterator[tuple[str, str]]:
    for label, file in files.items():
        try:
            content = read_small(file, most=LARGEST)
        except OSError as cause:
            yield f"{label}: content", f"{cause.strerror} ({file.stat().st_size} bytes)"
            continue
        settings = _of_json(content) if file.suffix in OF_JSON and len(content) <= MAX_BYTES else None
        if settings is None:
            yield f"{label}: content", f"sha256:{_hash(content)}"
        else:
            yield from ((f"{label}: {key}", value) for key, value in settings if not _is_note(key))


def _of_json(content: bytes) -> list[tuple[str, str]] | None:
    """Return the settings of a JSON object by dotted keys, or of a list the types of its parts; None for others.

    A library may move its types from one module to another: only their last names count.
    """
    try:
        document = parse_json(content)
        if isinstance(document, list):
            types = [part.get("type") if isinstance(part, dict) else None for part in document]
            named = [_last(each) for each in types if isinstance(each, str)]
            return [("types", ", ".join(named))] if len(named) == len(document) else None
        return list(_flat(document)) if isinstance(document, dict) else None
    except (ValueError, RecursionError):
        return None


def _flat(document: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the values by dotted keys. Raises ValueError for very long ones: of deep maps they would take gigabytes."""
    for key, value in document.items():
        name = f"{prefix}{key}"
        if len(name) > LONGEST_KEY:
            raise ValueError(name[:LONGEST_KEY])
        if isinstance(value, dict) and value:
            if key in MAPS_IN_ORDER:
                yield name, _text(list(value))
            yield from _flat(value, f"{name}.")
            continue
        yield name, _text(value)


def _text(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= LONGEST_VALUE else f"{text[:40]}... (sha256:{_hash(text.encode())})"


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def _is_note(key: str) -> bool:
    return any(matches(part, NOTES) for part in key.split("."))


def _last(key: str) -> str:
    return key.rpartition(".")[2]
