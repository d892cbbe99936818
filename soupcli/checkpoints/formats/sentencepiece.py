"""Models of sentencepiece: the pieces that they list, from the bytes of a file or of an entry of a checkpoint.

pieces_of(Path("spiece.model").read_bytes())            # ["<unk>", "\u2581the", ...]
"""

from __future__ import annotations

MOST_PIECES = 1_000_000
FEWEST = 4  # pieces of an entry that is taken for such a model


class TooManyPiecesError(ValueError):
    """More pieces than any tokenizer has."""


def pieces_of(content: bytes) -> list[str]:
    """Return the pieces of a protocol buffer in which these come first, each with its text first. Raises ValueError."""
    pieces: list[str] = []
    at = 0
    while content[at : at + 1] == b"\n":  # field 1, of a length that follows
        size, at = _varint(content, at + 1)
        length, begin = _varint(content, at + 1)
        pieces.append(content[begin : begin + length].decode("utf-8"))
        at += size
        if len(pieces) > MOST_PIECES:
            raise TooManyPiecesError(f"it holds more than {MOST_PIECES:,} tokens")
    return pieces


def numbered_pieces(content: bytes) -> dict[str, int] | None:
    """Return the number of each piece; None for bytes that are no such model."""
    try:
        pieces = pieces_of(content)
    except ValueError:
        return None
    return {piece: row for row, piece in enumerate(pieces)} if len(pieces) >= FEWEST else None


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """Return the number of seven bits a byte at `at`, and the position after it. Raises ValueError for a long one."""
    number = 0
    for shift in range(0, 35, 7):
        byte = content[at : at + 1] or b"\0"
        number |= (byte[0] & 127) << shift
        at += 1
        if byte[0] < 128:
            return number, at
    raise ValueError("a length of more than 35 bits")
