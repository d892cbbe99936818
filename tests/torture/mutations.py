"""What a seeded fuzzer does to bytes and to JSON: cut, flip, stretch, double, nest, and lie about lengths."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from typing import Any

BYTES = [
    b"\0" * 8,
    b"\xff" * 8,
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"{" * 60,
    b"[" * 3000,
    b'"',
    b"\n",
    b"\x1b[31m",
    b"9" * 30,
]
NUMBERS = [0, -1, 1, 7, 2**31, 2**63, -(2**63), 2**64, 10**30, 10**5000, 1e308, -0.5, float("nan"), float("inf")]
WORDS = [
    "",
    "\0",
    "..",
    "../../etc/passwd",
    "/etc/passwd",
    "a" * 70_000,
    "\ud800",
    "\n",
    "F32",
    "I64",
    "{checkpoint}",
    "\x1b[2J",
]


def mutated_bytes(data: bytes, rng: random.Random) -> bytes:
    """One to four changes of raw bytes."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(out) + 1)
        kind = rng.randrange(7)
        if kind == 0:
            del out[at:]
        elif kind == 1 and out:
            out[at % len(out)] ^= 1 << rng.randrange(8)
        elif kind == 2:
            out[at:at] = rng.choice(BYTES)
        elif kind == 3:
            del out[at : at + rng.randint(1, 40)]
        elif kind == 4:
            out[at:at] = out[at : at + rng.randint(1, 200)]
        elif kind == 5:
            out[at : at + 8] = struct.pack("<q", rng.choice([0, -1, 1, 2**40, 2**62, -(2**62), 255]))
        else:
            out[at : at + 4] = struct.pack("<i", rng.choice([0, -1, 1, 2**30, -(2**30), 65_535]))
    return bytes(out)


def mutated_json(document: Any, rng: random.Random) -> bytes:
    """JSON of the document with one to three of its parts replaced, removed, doubled or nested."""
    document = json.loads(json.dumps(document))
    for _ in range(rng.randint(1, 3)):
        document = _changed(document, rng)
    text = encoded(document)
    kind = rng.randrange(8)
    if kind == 0 and '": ' in text:  # a key twice
        at = text.index('"')
        text = text[:at] + text[at:].replace("{", '{"x": 1, "x": 2, ', 1)
    elif kind == 1:
        depth = rng.choice([50, 2000, 200_000])
        text = text[:-1] + ', "deep": ' + "[" * depth + "]" * depth + "}"
    return text.encode("utf-8", "surrogatepass")


def encoded(document: Any) -> str:
    """As `json.dumps`, also of numbers with more digits than Python writes by itself."""
    if isinstance(document, dict):
        return "{" + ", ".join(f"{json.dumps(k, ensure_ascii=False)}: {encoded(v)}" for k, v in document.items()) + "}"
    if isinstance(document, list):
        return "[" + ", ".join(map(encoded, document)) + "]"
    if isinstance(document, int) and document.bit_length() > 10_000:
        return "1" + "0" * 5000
    return json.dumps(document, ensure_ascii=False)


def _changed(document: Any, rng: random.Random) -> Any:
    places = list(_places(document))
    if not places:
        return rng.choice(NUMBERS)
    holder, key = rng.choice(places)
    old = holder[key]
    changes: list[Callable[[], Any]] = [
        lambda: rng.choice(NUMBERS),
        lambda: rng.choice(WORDS),
        lambda: None,
        list,
        dict,
        lambda: [old, old],
        lambda: {"x": old},
        lambda: not old,
        lambda: old + rng.choice([1, -1, 2**40]) if isinstance(old, int) else old,
    ]
    if isinstance(holder, dict) and rng.random() < 0.3:
        del holder[key]
        if rng.random() < 0.7:
            holder[rng.choice([*WORDS, str(key) + "x"])] = old
    else:
        holder[key] = rng.choice(changes)()
    return document


def _places(document: Any) -> Any:
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in list(items):
        yield document, key
        yield from _places(value)
