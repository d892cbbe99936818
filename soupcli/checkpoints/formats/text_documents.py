"""Texts of settings and lists as maps, lists and text: YAML, TOML, INI, XML, and what open_clip's training writes.

of_yaml("names: [cat, dog]")                            # {"names": ["cat", "dog"]}

Each raises ValueError for a text that is broken, or would take minutes.
"""

from __future__ import annotations

import ast
import configparser
import re
import tomllib
from contextlib import suppress
from typing import Any
from xml.etree import ElementTree

import yaml

from soupcli.checkpoints.formats.python_settings import of_python
from soupcli.files.json_text import parse_json

DEEPEST = 30  # levels of YAML, whose reader would overflow the stack, and parts of a key of TOML
VALUE = "value"  # the attribute of an element that is one text, such as those of OpenVINO's rt_info
PARAM = re.compile(r"\s*([^\W\d]\w*)\s*(?:: |=(?!=))\s*([^\t]*)")  # pix2pix writes the default behind a tab
LONGEST_YAML, LONGEST_LINE = 65_536, 1_000  # letters of a text in a checkpoint, and of its first line
FIRST = re.compile(r"[A-Za-z_][\w.-]*:( [^\n]*)?\n")
NAMESPACE = "Namespace("  # of argparse
FENCE = "---"  # around the YAML at the top of a README


def is_yaml(text: str) -> bool:
    """Whether a text may be settings in YAML, such as OmegaConf.to_yaml's: lines, of which the first has a key."""
    return "\n" in text and len(text) <= LONGEST_YAML and FIRST.match(text[:LONGEST_LINE]) is not None


def of_yaml(content: str) -> Any:
    """Return the document with every scalar as text."""
    loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # joins no mappings
    depth = 0
    try:
        for event in yaml.parse(content, loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise ValueError(f"nested more than {DEEPEST} deep")
        return yaml.load(content, loader)
    except yaml.YAMLError as cause:
        raise ValueError(f"not YAML: {cause}") from cause


def of_front_matter(content: str) -> Any:
    """Return the YAML at the top of a README, or None without any."""
    first, *lines = content.split("\n")
    end = next((at for at, line in enumerate(lines) if line.rstrip() == FENCE), 0)
    return of_yaml("\n".join(lines[:end])) if first.rstrip() == FENCE and end else None


def of_toml(content: str) -> Any:
    """Return the document, unless a key has many parts."""
    for line in content.split("\n"):
        key = line.rpartition("=")[0] or (line if line.lstrip().startswith("[") and "," not in line else "")
        if key.count(".") > DEEPEST:
            raise ValueError(f"a key of more than {DEEPEST} parts")
    return tomllib.loads(content)


def of_ini(content: str) -> dict[str, dict[str, str]]:
    """Return the sections of an INI file."""
    reader = configparser.ConfigParser(interpolation=None, strict=False, allow_no_value=True)
    try:
        reader.read_string(content)
    except configparser.Error as cause:
        raise ValueError(f"not INI: {cause}") from cause
    return {name: {key: value or "" for key, value in section.items()} for name, section in reader.items()}


def of_xml(content: str) -> dict[str, Any]:
    """Return the element at the top by its name: `<labels><label>cat</label>...` is `{"labels": ["cat", ...]}`.

    A text that declares entities, which may be far longer than the text, is none.
    """
    if "<!" in content.replace("<!--", "").replace("<![CDATA[", ""):
        raise ValueError("declares what XML of settings does not need")
    try:
        top = ElementTree.fromstring(content)
    except ElementTree.ParseError as cause:
        raise ValueError(f"not XML: {cause}") from cause
    return {_tag(top): _of_element(top, 0)}


def _of_element(element: ElementTree.Element, depth: int) -> Any:
    """Return the parts of an element as a list if all have one name, else by their names; of a leaf its text."""
    if depth > DEEPEST:
        raise ValueError(f"nested more than {DEEPEST} deep")
    own: dict[str, Any] = {key: value for key, value in element.items() if key != VALUE}
    text = (element.text or "").strip() or element.get(VALUE, "")
    if not len(element):
        return {**own, "name": text} if own and text else own or text
    parts: dict[str, list[Any]] = {}
    for part in element:
        parts.setdefault(part.get("name", _tag(part)) if len(part) else _tag(part), []).append(
            _of_element(part, depth + 1)
        )
    named = [*parts]
    if len(named) == 1 and len(element) > 1:
        return parts[named[0]]
    return own | {name: found if len(found) > 1 else found[0] for name, found in parts.items()}


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def of_mlmodel(content: str) -> dict[str, dict[str, Any]]:
    """Return the names, or shapes, of inputs and outputs in MLflow's `MLmodel`, and the user's metadata. It is YAML."""
    document = of_yaml(content)
    entries = document if isinstance(document, dict) else {}
    said = entries.get("signature")
    signature = said if isinstance(said, dict) else {}
    found: dict[str, Any] = {}
    for side in ("inputs", "outputs"):
        columns = parse_json(signature.get(side) or "[]")
        parts = [part for part in columns if isinstance(part, dict)] if isinstance(columns, list) else []
        names = [part["name"] for part in parts if isinstance(part.get("name"), str)]
        specs = [part["tensor-spec"] for part in parts if isinstance(part.get("tensor-spec"), dict)]
        found |= {side: names} if names and len(names) == len(parts) else {}
        found |= {f"{side[:-1]}_shape": str([spec.get("shape") for spec in specs])} if specs else {}
    beside = {key: entries[key] for key in ("metadata",) if isinstance(entries.get(key), dict)}
    return {"signature": found, **beside}


def of_params(content: str) -> Any:
    """Return the settings in lines of a name, a colon or an equals sign, and a value, or in another form.

    That is JSON, YAML or a Namespace as Python prints it.
    """
    if content.startswith("{"):
        return parse_json(content)
    if content.startswith(NAMESPACE):
        return of_python(f"args = {content}")
    if is_yaml(content):
        with suppress(ValueError):
            return of_yaml(content)
    pairs = (PARAM.match(line) for line in content.split("\n"))
    return {pair[1]: _plain(pair[2].strip()) for pair in pairs if pair is not None}


def _plain(text: str) -> Any:
    """Return a list or map as Python prints it, any other text as it is."""
    if text[:1] + text[-1:] not in ("[]", "{}", "()"):
        return text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return text
