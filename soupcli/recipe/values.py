"""What a single value of a recipe may be: paths beside the recipe, sizes, grids, gates; as pydantic checks them."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, ValidationInfo

from soupcli.recipe.gates import leaves, parse, parse_gain
from soupcli.wording import HUB_WORD

SHORT_DTYPES = {
    **dict.fromkeys(("bf16", "bfloat"), "bfloat16"),
    **dict.fromkeys(("fp16", "f16", "half"), "float16"),
    **dict.fromkeys(("fp32", "f32", "float"), "float32"),
    **dict.fromkeys(("fp64", "f64", "double"), "float64"),
}


def _dtype(value: object) -> object:
    """`bf16` and `torch.bfloat16` as `bfloat16`, and so on."""
    word = value.lower().removeprefix("torch.") if isinstance(value, str) else value
    return SHORT_DTYPES.get(word, word) if isinstance(word, str) else value


def _precision(value: object) -> object:
    """`bfloat16` as `bf16`, and `float16` as `fp16`."""
    return {"bfloat16": "bf16", "float16": "fp16"}.get(str(_dtype(value)), value)


Dtype = Annotated[Literal["float64", "float32", "float16", "bfloat16"], BeforeValidator(_dtype)]
Precision = Annotated[Literal["bf16", "fp16"], BeforeValidator(_precision)]


def _beside_recipe(path: Path, info: ValidationInfo) -> Path:
    base: Path | None = (info.context or {}).get("base")
    path = path.expanduser()
    return base / path if base is not None else path


def _checkpoint_path(path: Path, info: ValidationInfo) -> Path:
    """A path beside the recipe (`~` is the home), unless nothing is there and it has the form of a model of the Hub."""
    place = _beside_recipe(path, info)
    owner = _beside_recipe(Path(path.parts[0]), info) if path.parts else place
    is_model = HUB_WORD.fullmatch(str(path)) is not None and not place.exists() and not owner.exists()
    return path if is_model else place


def _python_reference(value: str, info: ValidationInfo) -> str:
    file, colon, function = value.rpartition(":")
    if not colon or not file.endswith(".py") or not function.isidentifier():
        raise ValueError(f"expected 'file.py:function', got {value!r}")
    return f"{_beside_recipe(Path(file), info)}:{function}"


def _decay(value: object, info: ValidationInfo) -> str:
    """`linear`, `1-sqrt`, `cosine`, `ema:0.99`, or the path of a file."""
    word = str(value)
    if word in ("linear", "1-sqrt", "cosine"):
        return word
    if word.startswith("ema:"):
        try:
            beta = float(word.removeprefix("ema:"))
        except ValueError:
            beta = -1.0
        if not 0 < beta < 1:
            raise ValueError(f"expected ema: and a number between 0 and 1, e.g. ema:0.99, got {value!r}")
        return word
    path = _beside_recipe(Path(word), info)
    if not path.is_file():
        raise ValueError(f"expected linear, 1-sqrt, cosine, ema:BETA or a file, got {value!r}")
    return str(path)


def _byte_size(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?B)", str(value).strip(), re.IGNORECASE)
    if match is None or len(match[1]) > 30:
        raise ValueError(f"expected a size such as 5GB or 500MB, got {value!r}")
    return int(float(match[1]) * 1000 ** ["B", "KB", "MB", "GB", "TB"].index(match[2].upper()))


def _checkpoint_word(word: str, info: ValidationInfo) -> str:
    """A path or glob of `ckpts`, or a model of the Hub; a final slash, which asks for folders alone, is kept."""
    if word == "-" or word.startswith("~") or not word.strip():
        return word
    return f"{_checkpoint_path(Path(word), info)}{'/' if word.endswith('/') else ''}"


def _class_ids(value: object, info: ValidationInfo) -> object:
    """A file, `folders`, a list of ids, or a map from class to indices."""
    if isinstance(value, Path | str) and str(value):
        return value if value == "folders" else _beside_recipe(Path(value), info)
    found = ids_or_logits(value)
    if found is None:
        raise ValueError(
            f"expected a file, 'folders', a list of class ids, or a map from class to index or indices, got {value!r}"
        )
    return found


def ids_or_logits(value: object) -> list[int | str] | dict[str, list[int]] | None:
    """A list of class ids, or a map from each class to the indices of its logits; None for anything else."""
    if isinstance(value, list) and value and all(_is_index(id_) or isinstance(id_, str) for id_ in value):
        return value
    if isinstance(value, dict) and value:
        logits_of = {name: logits if isinstance(logits, list) else [logits] for name, logits in value.items()}
        if all(logits and all(map(_is_index, logits)) for logits in logits_of.values()):
            return logits_of
    return None


def _is_index(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _gate(value: object) -> object:
    """A bound, or a map from metric to bound, of which each can be read."""
    for _, bound in leaves({"": value}):
        parse(bound)
    return value


def _gain(value: object) -> object:
    parse_gain(value)
    return value


def _margin(value: object) -> object:
    """A difference in the metric's own unit; `0.1%` is 0.001, a tenth of a percentage point."""
    if isinstance(value, str) and value.strip().endswith("%"):
        return float(_decimal(value.strip()[:-1].strip())) / 100
    return value


def _numbers(value: object) -> object:
    """`0.7,0.3`, as a flag gives it, as a list."""
    if isinstance(value, str):
        return [word.strip() for word in value.split(",")]
    return value if isinstance(value, list) else [value]


def _decimal(word: str) -> Fraction:
    """The number that a word says. Raises ValueError for one with more digits than anybody writes."""
    if len(word) > 40 or re.search(r"e[-+]?\d{3}", word, re.IGNORECASE):
        raise ValueError(f"too long a number: {word[:40]}")
    return Fraction(word)


def _grid(value: object) -> object:
    """`0:1:0.25` as [0, 0.25, 0.5, 0.75, 1], in decimals; else as `_numbers`."""
    if not isinstance(value, str) or ":" not in value:
        return _numbers(value)
    try:
        first, last, step = map(_decimal, value.split(":"))
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"expected first:last:step, e.g. 0:1:0.1, got {value!r}") from None
    if step <= 0 or last < first or (last - first) / step > 1000:
        raise ValueError(f"expected first:last:step that goes up, in at most 1000 steps, got {value!r}")
    return [float(first + step * number) for number in range((last - first) // step + 1)]


def _objective(value: object) -> object:
    """`mean`, `worst`, or a weight for each set, as a flag gives them: `a=2,b=1`."""
    if not isinstance(value, str) or value in ("mean", "worst"):
        return value
    pairs = [word.rpartition("=") for word in value.split(",")]
    if not all(name.strip() and weight.strip() for name, _, weight in pairs):
        raise ValueError(f"expected mean, worst or SET=WEIGHT,SET=WEIGHT, got {value!r}")
    if len({name.strip() for name, _, _ in pairs}) < len(pairs):
        raise ValueError(f"names a set twice: {value!r}")
    return {name.strip(): weight.strip() for name, _, weight in pairs}


def _device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
        raise ValueError(f"expected auto, cpu, cuda, cuda:N or mps, got {value!r}")
    return value


RecipePath = Annotated[Path, AfterValidator(_beside_recipe)]
PythonReference = Annotated[str, AfterValidator(_python_reference)]
CheckpointPath = Annotated[Path, AfterValidator(_checkpoint_path)]
CheckpointWord = Annotated[str, AfterValidator(_checkpoint_word)]
Device = Annotated[str, AfterValidator(_device)]
ClassIds = Annotated[
    Path | Literal["folders"] | list[int | str] | dict[str, list[int]],
    PlainValidator(_class_ids, json_schema_input_type=str | list[int | str] | dict[str, int | list[int]]),
]
GateBounds = Annotated[Any, PlainValidator(_gate, json_schema_input_type=str | dict[str, Any])]
Margin = Annotated[float, BeforeValidator(_margin)]
Gain = Annotated[float | str, PlainValidator(_gain, json_schema_input_type=float | str)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Numbers = Annotated[
    list[Finite],
    Field(min_length=1),
    BeforeValidator(_numbers, json_schema_input_type=str | float | list[float]),
]
ObjectiveWord = Annotated[
    Literal["mean", "worst"] | dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]],
    BeforeValidator(_objective, json_schema_input_type=str | dict[str, float]),
]
Columns = Annotated[
    list[str],
    Field(min_length=1, max_length=2),
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value, json_schema_input_type=str | list[str]),
]
Sizes = Annotated[
    list[Annotated[int, Field(gt=0)]],
    Field(min_length=1),
    BeforeValidator(_numbers, json_schema_input_type=str | int | list[int]),
]
Decay = Annotated[str, BeforeValidator(_decay)]
Grid = Annotated[
    list[Finite],
    Field(min_length=1),
    BeforeValidator(_grid, json_schema_input_type=str | float | list[float]),
]
ByteSize = Annotated[int, BeforeValidator(_byte_size), Field(gt=0)]
