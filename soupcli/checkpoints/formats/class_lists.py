"""Names of classes in the order of a head's rows, as files and the entries of checkpoints state them.

named_rows({"meta": {"classes": ("cat", "dog")}})       # {"meta.classes": ["cat", "dog"]}
rows_of_text("0: cat\\n1: dog\\n")                        # ["cat", "dog"]
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from soupcli.checkpoints.formats.numpy_names import names_in
from soupcli.files.json_text import parse_json
from soupcli.late import late_pattern

DEEPEST = 3  # levels that are searched
MOST = 100_000  # classes, and entries that are searched
FEW = 4  # settings that may count from 0 by chance, such as a fold and a seed
MOST_LOOKED_AT, PER_LIST = 300_000, 10  # items of lists and maps: one that lies in many places counts in each
LONGEST = 4096  # characters of a line
MOST_CHARACTERS = 4_000_000  # of all names of a list
FEWEST_LETTERS, LONGEST_JSON = 20, 1 << 25  # of JSON in a text, such as a whole tokenizer
_NUMBER, _NAME = "(ids?|int|idx|ind(ex|ices))", "(label|class|name|tag|intent|category|target)(es|s)?"
_MAPS = rf"{_NUMBER}_?(2|to)_?{_NAME}|{_NAME}_?(2|to)_?{_NUMBER}"
_NAMES = r"(label|class|target|category)_?(names|list|order)|labels|classes|names"
_LISTS = (
    rf"{_MAPS}|categor(y|ies)|synsets?([_-]?(words|mapping))?|species|tags|intents|target_?names"
    r"|(label|class|category|intent|tag)(es|s)?"
    r"([_-]?(names|map|mapping|list|dict|index|indices|order|(encoder|encoding)([_-]?classes)?))?"
)
KEYS = late_pattern(rf"({_MAPS}|{_NAMES})_?", re.IGNORECASE)
LISTS = late_pattern(rf"names|([\w-]+[_-])?({_LISTS})", re.IGNORECASE)
ENDINGS = ("", "json", "yaml", "yml", "toml", "txt", "names", "csv", "tsv", "lst", "list", "dat", "pbtxt")
BINARY = ("npy", "pkl", "pickle", "joblib", "pt", "pth")
# Lists of other things, whose order says nothing, by their key or the name of their file.
OTHERS = late_pattern(
    r"versions?|(.*[_-])?(modules|datasets?|metrics?|languages?|architectures|tokens|files|paths|callbacks|report_to|ignore|layers"
    r"|inputs?|plugins|loggers|gpus|devices|authors|splits|args|argv|packages|requirements|losses|counts?"
    r"|frequenc(y|ies)|distribution|statistics|stats|accurac(y|ies)|scores?|report|confusion(_matrix)?|weights|configs?|h?params|hyper_?parameters|settings|options)_?"
    r"|(?!.*(class|label|categor|target))(.*[_-])?(hooks|blocks|stages|backbones?|base_models?|features|feature_names|folds"
    r"|ids|opts?|best|trial|channels|columns|machines|dependencies|todo|notes?|curriculum|mix(ture)?|sampling|ratios?|proportions?|log(s|ging)?|monitor|hosts|nodes|workers|loss|terms|aug\w*|tfms|transforms?|optimizers?|schedulers?"
    r"|defaults|(no_)?decay|freeze|frozen|param(eter)?s?|param_groups|ranking|results|sources|roots|train(ing)?|eval|test"
    r"|val(id|idation)?)|(?!.*(class|label|categor))(train|val(id|idation)?|test|dev|eval|oof|holdout)[_-].*"
    r"|(?!.*(class|label|categor))(.*[_-])?(pred(ict(ion|ed)?)?s?|results?)([_-].*)?"
    r"|(stop|hot|bad|banned|forbidden)[_-]?words|((?!.*(class|label|categor))(.*[_-])?(prompts|samples|examples|contributors))"
    r"|tags|library_name|pipeline_tag|license",
    re.IGNORECASE,
)
# Names of files and packages, and measures, which are no classes.
NO_CLASS = late_pattern(
    r"[+-]?\d+(\.\d*|\.?\d*e[+-]?\d+)|\w+://.*|(~|\.{0,2})/.*|[\w.\[\]-]+\s*([=~><!]=|@).*|.*\.(jpe?g|png|bmp|gif|tiff?|webp|wav|flac|mp[34])"
    r"|.*\.(txt|csv|tsv|jsonl?|parquet|npy|npz|pt|h5|gz|tar|zip|py|ya?ml)",
    re.IGNORECASE,
)
# Words of settings and measures of a training, which may be 0, 1, ... by chance, and beginnings of such names.
_SETTING = late_pattern(
    r"seed|random|fold|epochs?|steps?|iters?|iterations?|rank|lr|rate|learning|batch|size|version|scores?|trial"
    r"|run|repeat|exp|experiment|id|idx|index|nr|cpus?|bbox|segm|number|num|count|total|split|gpus?|cuda|devices?|node|workers?"
    r"|rng|loss|acc|accuracy|f1|auc|auroc|precision|recall|top[15]|map|m?iou|mae|r?mse|r2|ppl|perplexity|bleu"
    r"|rouge|wer|cer|errors?|skipped|missing|[tf][pn]|dropout|drop|decay|wd|weight|momentum|warmup|clip|grad"
    r"|gradient|norm|ema|amp|fp16|bf16|mixup|cutmix|smoothing|patience|temperature|eps|epsilon|layers|depth|width"
    r"|dim|hidden|verbose|debug|resume|threshold|delta|train(ing)?|val(id|idation)?|test|dev|eval|metric|best|last"
    r"|current|job|attempt|restart|accumulation"
)
_BEGIN_SETTINGS = {"use", "num", "n", "max", "min", "best", "last", "total", "local", "global", "enable", "disable"}
_CAMEL = re.compile(r"(?<=[a-z]{2})(?=[A-Z])")
PLACEHOLDER = late_pattern(r"(LABEL_|class_?)?\d+", re.IGNORECASE)  # of classes that nobody has named
_NUMBER_FIRST = late_pattern(r"(\d{1,9})[\s:,;=]+(.+)")  # lines of a list: `0 cat`, `1: dog`, `0,cat`
_NUMBER_LAST = late_pattern(r"(.*[^\s:,;=>])[\s:,;=>]+(\d{1,9})")  # `cat 0`, `'cat' => 0`
_END = re.compile(r"={4,}")  # of the list in a label encoder of SpeechBrain (speechbrain/dataio/encoder.py)
_BY_MERIT = late_pattern(r"(hardest|easiest|worst|best|rarest|confused|wrong)([_-].*)?", re.IGNORECASE)
_WNID = re.compile(r"(n\d{8})\b.*")  # `n01440764 tench, Tinca tinca`: the name in front counts
_HEADER = late_pattern(rf"{_NAME}|{_NAMES}", re.IGNORECASE)

# Keys, and names of files, of lists of what an embedding has a row for.
EMBEDDED = late_pattern(
    r"(speaker|singer|voice|style|emotion|accent|artist|genre|instrument|lang(uage)?|character|domain)s?",
    re.IGNORECASE,
)
# Keys of vocabularies, and of those whose tokens are single letters.
TOKEN_KEYS = late_pattern(
    r"stoi|itos|vocab(ulary|s)?(_?(json|dict|list|map))?|tokens?|symbols|(token|char|letter|word|phone(me)?|symbol|piece)s?_?(2|to)_?(id|ids|idx|ind(ex|ices))"
    r"|(id|idx|ind(ex|ices))_?(2|to)_?(token|char|letter|word|phone(me)?|symbol|piece)s?|(src|tgt|source|target)_(dict|vocab)",
    re.IGNORECASE,
)
LETTERS = late_pattern(r"char(acter)?s?(_?(set|list))?|alphabet|letters|symbols|vocab(ulary)?", re.IGNORECASE)

View = Callable[[Any], "Mapping[Any, Any] | None"]


def named_rows(document: Any, view_of: View | None = None) -> dict[str, list[str]]:
    """Return the names of classes in a document, by the dotted key that states them.

    `view_of` returns the entries of a nested value, or None.
    """
    entries = _entries(document, view_of or _mapping)
    found = {place: names_by_row(value) for place, key, value in entries if KEYS.fullmatch(key)}
    return {place: names for place, names in found.items() if names is not None}


def other_lists(document: Any, view_of: View | None = None) -> dict[str, list[str]]:
    """Return the lists of different names in a document that may be those of a head's rows, by their dotted keys.

    They count as such only if another document has the same names in another order.
    """
    entries = _entries(document, view_of or _mapping)
    found = {place: other_list(key, value) for place, key, value in entries}
    return {place: names for place, names in found.items() if names is not None}


def other_list(key: str, value: Any) -> list[str] | None:
    """Return different names in order, or None if the key or the names are those of something else than classes."""
    is_list = LISTS.fullmatch(key) is not None
    is_other = OTHERS.fullmatch(key) or _BY_MERIT.fullmatch(key)
    names = None if is_other else names_in_order(value, least=1 if is_list else FEW)
    if names is None or all(map(NO_CLASS.fullmatch, names)) or (not is_list and are_settings(names)):
        return None
    return names


def are_settings(names: Sequence[str]) -> bool:
    """Whether more than half of the names are those of settings or measures of a training: `seed`, `best_epoch`."""
    return sum(map(_is_setting, names)) * 2 > len(names)


def _is_setting(name: str) -> bool:
    words = [word for word in re.split(r"[_\W]+", _CAMEL.sub("_", name).casefold()) if word]
    words = [word for word in words if not word.isdecimal()]
    return bool(words) and (all(map(_SETTING.fullmatch, words)) or (len(words) > 1 and words[0] in _BEGIN_SETTINGS))


def _entries(document: Any, view_of: View) -> Iterator[tuple[str, str, Any]]:
    """Yield the dotted place of each list, map and object, its key and its value, the upper ones first."""
    waiting, seen, looked_at = deque([("", 1, view_of(document))]), 0, 0
    while waiting and seen < MOST:
        prefix, depth, view = waiting.popleft()
        seen += len(view or ())
        for key, value in (view or {}).items():
            if isinstance(value, str) and _are_letters(str(key), value):
                yield f"{prefix}{key}", str(key), list(value)
            is_document = isinstance(value, str) and value.startswith("{")
            if value is None or (isinstance(value, str | int | float) and not is_document):
                continue
            below = view_of(value)
            looked_at += PER_LIST + len(value if below is None and isinstance(value, list | tuple) else below or ())
            if looked_at > MOST_LOOKED_AT:
                return
            yield f"{prefix}{key}", str(key), names_in(below or value)
            if below and depth < DEEPEST:
                waiting.append((f"{prefix}{key}.", depth + 1, below))


def entries_of_json(text: bytes | str) -> Mapping[Any, Any] | None:
    """Return the entries of a JSON document, of a whole tokenizer only its model's; None for any other text."""
    if not FEWEST_LETTERS <= len(text) <= LONGEST_JSON:
        return None
    try:
        document = parse_json(text, most=MOST_LOOKED_AT)
    except (ValueError, RecursionError):
        return None
    model = document.get("model") if isinstance(document, dict) else None
    return model if isinstance(model, dict) and "vocab" in model else _mapping(document)


def _are_letters(key: str, value: str) -> bool:
    """Whether a text is a vocabulary, each of its letters a token."""
    return LETTERS.fullmatch(key) is not None and FEW <= len(value) == len(set(value)) <= MOST


def names_in_order(value: Any, *, least: int = FEW) -> list[str] | None:
    """Return different names in order, from a list or a map that counts them from 0 or 1; None for anything else.

    A map from names to numbers has at `least` so many.
    """
    if isinstance(value, Mapping):
        first = next(iter(value.items()), ())
        if not 1 < len(value) <= MOST or all(_row(one) is None for one in first):
            return None
        numbers, others = ([_row(one) for one in side] for side in (value.keys(), value.values()))
        by, texts = (numbers, value.values()) if None not in numbers else (others, value.keys())
        known = [number for number in by if number is not None]
        counted = set(known) in (set(range(len(value))), set(range(1, len(value) + 1)))
        if not counted or (by is others and len(value) < least):
            return None  # numbers of something else, such as a seed and a number of epochs
        value = [text for _, text in sorted(zip(known, texts, strict=True), key=lambda pair: pair[0])]
    names = names_by_row(value) if isinstance(value, list | tuple) else None
    return names if names is not None and len(set(names)) == len(names) else None


def names_by_row(value: Any) -> list[str] | None:
    """Return names in order, from a list or from a map between numbers and names; None for anything else."""
    if not isinstance(value, Mapping | list | tuple) or not 1 < len(value) <= MOST:
        return None
    if isinstance(value, Mapping):
        pairs = [(number, name) for number, name in value.items() if _row(number) is not None]
        if len(pairs) < len(value) or not all(isinstance(name, str | list) for _, name in pairs):
            pairs = [(number, name) for name, number in value.items()]
        rows = {_row(number): name for number, name in pairs}
        if rows.keys() != set(range(len(value))):
            return None
        value = [rows[row] for row in range(len(rows))]
    elif isinstance(value, list) and all(isinstance(entry, Mapping) for entry in value):  # COCO's categories
        first = _row(value[0].get("id", 0))
        if first not in (0, 1) or any(_row(one.get("id", row)) != row for row, one in enumerate(value, first)):
            return None
        value = [entry.get("name") for entry in value]
    names = [name[0] if isinstance(name, list) and name else name for name in value]  # Keras: [wnid, name]
    are_names = all(isinstance(name, str) for name in names) and sum(map(len, names)) <= MOST_CHARACTERS
    return names if are_names else None


def rows_of_text(text: str) -> list[str] | None:
    """Return the names of a list with one class a line, or all in one line, with or without numbers, or of a table."""
    if text.count("\n") > MOST or text.count(",") > MOST * 10:
        return None
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    lines = lines[: next((at for at, line in enumerate(lines) if _END.fullmatch(line)), len(lines))]
    if len(lines) == 1:
        lines = [name.strip() for name in lines[0].split(",")]
    if len(lines) > MOST or max(map(len, lines), default=0) > LONGEST:
        return None
    if lines and _WNID.fullmatch(lines[0]):
        wnids = [_WNID.fullmatch(line) for line in lines]
        if all(wnids):
            return names_by_row([match[1] for match in wnids if match is not None])
    for form, number, name in ((_NUMBER_FIRST, 1, 2), (_NUMBER_LAST, 2, 1)):
        for numbered in (lines, lines[1:]):  # a table has a header
            if not numbered or form.fullmatch(numbered[0]) is None:
                continue
            found = [form.fullmatch(line) for line in numbered]
            pairs = {int(match[number]): match[name].strip() for match in found if match is not None}
            if found and pairs.keys() == set(range(len(found))) and len(set(pairs.values())) == len(found):
                return names_by_row(pairs)
    table = next((rows for mark in "\t,;" if (rows := _table(lines, mark)) is not None), None)
    return table or names_by_row(lines[1:] if lines and _HEADER.fullmatch(lines[0]) else lines)


def _table(lines: Sequence[str], mark: str) -> list[str] | None:
    """Return the names in a table with a header: by the first column of numbers from 0 on, else from top to bottom."""
    rows = [[cell.strip().strip('"') for cell in line.split(mark)] for line in lines]
    if len(rows) < 3 or len(rows[0]) < 2 or any(len(row) != len(rows[0]) for row in rows):
        return None
    header, columns = rows[0], [list(column) for column in zip(*rows[1:], strict=True)]
    names = next((column for title, column in zip(header, columns, strict=True) if _HEADER.fullmatch(title)), None)
    if names is None or len(set(names)) < len(names):
        return None
    every = {str(row) for row in range(len(names))}
    numbers = next((column for column in columns if set(column) == every), None)
    return names_by_row(names if numbers is None else dict(zip(numbers, names, strict=True)))


def rows_of_pbtxt(text: str) -> list[str] | None:
    """Return the names of TensorFlow's label map, whose numbers begin with 1."""
    if text.count("{") > MOST:
        return None
    items = re.findall(rf"\{{([^{{}}]{{0,{LONGEST}}})\}}", text)
    numbers = [re.search(r"\bid\s*:\s*(\d{1,9})", item) for item in items]
    names = [re.search(r"""\b(?:display_)?name\s*:\s*(?:"([^"]*)"|'([^']*)')""", item) for item in items]
    found = {int(number[1]): name[1] or name[2] for number, name in zip(numbers, names, strict=True) if number and name}
    return names_in_order([found[number] for number in sorted(found)])


def is_class_list(name: str) -> bool:
    """Whether a file of this name lists the classes of the network that it lies beside."""
    stem, _, ending = name.rpartition(".") if "." in name else (name, "", "")
    named = ending == "names" or (ending.lower() in (*ENDINGS, *BINARY) and LISTS.fullmatch(stem) is not None)
    return named and _BY_MERIT.fullmatch(stem) is None


def plain_name(name: str) -> str:
    """Return a name without case and separators."""
    return re.sub(r"[\W_]+", "", name).casefold() or name


def _mapping(value: Any) -> Mapping[Any, Any] | None:
    return value if isinstance(value, Mapping) else None


def _row(value: Any) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
        return int(value)
    return value if type(value) is int else None
