"""What a server that HF_ENDPOINT names may answer: names of files and of their contents, and no ways out of the cache.

    with answers_checked(huggingface_hub, {"config.json": 570}):
        ...                                        # raises CheckpointError for a header that is a path, or byte 571

huggingface_hub makes paths of the headers of an answer, such as the ETag, and writes what follows under them, however
long it is.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from soupcli.errors import CheckpointError

NAMING = ("ETag", "X-Linked-Etag", "X-Repo-Commit", "X-Xet-Hash")  # headers that become parts of paths
PLAIN = re.compile(r'(W/)?"?[\w.:+=-][\w.:+=/-]{0,200}"?', re.ASCII)
UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
LONGEST = 1000  # letters of a file's name
MOST_LISTED, MOST_LISTS, MOST_SECONDS = 8_000_000, 100, 60  # bytes, answers and seconds of all that list files
SLOW_SECONDS, LEAST_RATE = (
    60.0,
    1_000,
)  # of waiting for a body, and bytes a second: as git's http.lowSpeedLimit bounds it
MOST_REFUSED = 1_000_000  # bytes of an answer that refuses or leads elsewhere
MOST_UNLISTED = 1 << 26  # bytes of a file whose size nobody says


def is_name(name: object) -> bool:
    """Whether this is a file's name as a repository has it: relative, within it, and one that can be shown."""
    return (
        isinstance(name, str)
        and 0 < len(name) <= LONGEST
        and not UNSEEN.search(name)
        and not any(step in ("", ".", "..") for step in name.split("/"))
    )


@contextmanager
def answers_checked(hub: Any, sizes: Mapping[str, int | None] | None = None) -> Iterator[None]:
    """Check headers and sizes of all answers within the block, if huggingface_hub asks through httpx (from 1.0 on).

    `sizes` are those of the files that are fetched, as the Hub lists them; None for one that it does not say.
    """
    session = hub.get_session() if hasattr(hub, "get_session") else None
    hooks = getattr(session, "event_hooks", None)
    if session is None or hooks is None:
        yield
        return
    bounds = _Bounds(sizes or {})
    asks, answers = hooks.get("request", ()), hooks.get("response", ())
    session.event_hooks = {**hooks, "request": [*asks, _ask_plainly], "response": [*answers, _check, bounds.put_on]}
    try:
        yield
    finally:
        session.event_hooks = hooks


def _ask_plainly(request: Any) -> None:
    """Ask for what is not compressed: a few bytes could be unpacked to gigabytes."""
    request.headers["Accept-Encoding"] = "identity"


def _check(response: Any) -> None:
    for header in NAMING:
        value = response.headers.get(header)
        if value is not None and (not PLAIN.fullmatch(value) or ".." in value):
            raise _odd(response, f"answers with {header}: {value[:80]!r}, which is no name of a file's content")
    packing = response.headers.get("Content-Encoding", "identity")
    if packing.strip().lower() not in ("", "identity"):
        raise _odd(response, f"answers with Content-Encoding: {packing[:80]!r}, which was not asked for")


class _Bounds:
    """How much answers may send: lists of files some megabytes in all, files what was listed."""

    def __init__(self, sizes: Mapping[str, int | None]) -> None:
        self._sizes = sizes
        self._largest = max((size for size in sizes.values() if size is not None), default=None)
        self._lists = self._listed = 0  # answers, and their bytes
        self._end = time.monotonic() + MOST_SECONDS  # of lists

    def put_on(self, response: Any) -> None:
        """Let the body of an answer be read up to its bound."""
        if response.status_code not in (200, 206):
            self._bound(response, MOST_REFUSED, "at most {most} are read of a refusal")
        elif "/api/" in response.request.url.path:
            self._lists += 1
            if self._lists > MOST_LISTS:
                raise _odd(response, f"is page {self._lists} of a list, at most {MOST_LISTS} are read")
            self._bound(response, MOST_LISTED, "at most {most} are read", is_list=True)
        else:
            most = self._most_of(response)
            if most is not None:
                self._bound(response, most, "the Hub lists {most}")

    def _most_of(self, response: Any) -> int | None:
        """Return the bytes of a file: what is listed, or, if nothing is, what the answer says, or a few."""
        name = response.request.url.path.partition("/resolve/")[2].partition("/")[2]
        listed = self._sizes.get(name, self._largest)
        return MOST_UNLISTED if listed is None and "Content-Length" not in response.headers else listed

    def _bound(self, response: Any, most: int, why: str, *, is_list: bool = False) -> None:
        said = response.headers.get("Content-Length", "0")
        if response.request.method != "HEAD" and said.isdecimal() and int(said) > most:
            raise _odd(response, f"answers with {int(said)} bytes, {why.format(most=most)}")
        pieces = response.iter_raw

        def bounded(chunk_size: int | None = None) -> Iterator[bytes]:
            count = 0
            for piece in _while_fast(response, pieces(chunk_size)):
                count += len(piece)
                self._listed += len(piece) if is_list else 0
                if (self._listed if is_list else count) > most:
                    raise _odd(response, f"goes on after {count} bytes, {why.format(most=most)}")
                if is_list and time.monotonic() > self._end:
                    raise _odd(response, f"goes on after {MOST_SECONDS} seconds and {count} bytes")
                yield piece

        response.iter_raw = bounded


def _while_fast(response: Any, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the pieces. Raises CheckpointError if too few bytes come in SLOW_SECONDS of waiting for them."""
    count, waited, began = 0, 0.0, time.monotonic()
    for piece in pieces:
        count, waited = count + len(piece), waited + time.monotonic() - began
        if waited > SLOW_SECONDS:
            if count < waited * LEAST_RATE:
                raise CheckpointError(
                    f"{_place(response)}: sent {count} bytes in {waited:.0f} seconds, at least {LEAST_RATE} a second "
                    "are waited for",
                    hint="run it again when the server is faster: files that are whole are not fetched again",
                )
            count, waited = 0, 0.0
        yield piece
        began = time.monotonic()  # not while the piece is written to the disk


def _place(response: Any) -> str:
    return str(response.request.url).partition("?")[0][:300]


def _odd(response: Any, what: str) -> CheckpointError:
    return CheckpointError(f"{_place(response)}: {what}", hint="see HF_ENDPOINT: which server does it name?")
