"""What a server that HF_ENDPOINT names may answer: names of files and of their contents, and no ways out of the cache.

    with answers_checked(huggingface_hub):
        ...                                        # raises CheckpointError for a header that is a path

huggingface_hub makes paths of the headers of an answer, such as the ETag, and writes what follows under them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from soupcli.errors import CheckpointError

NAMING = ("ETag", "X-Linked-Etag", "X-Repo-Commit", "X-Xet-Hash")  # headers that become parts of paths
PLAIN = re.compile(r'(W/)?"?[\w.:+=-][\w.:+=/-]{0,200}"?', re.ASCII)
UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
LONGEST = 1000  # letters of a file's name


def is_name(name: object) -> bool:
    """Whether this is a file's name as a repository has it: relative, within it, and one that can be shown."""
    return (
        isinstance(name, str)
        and 0 < len(name) <= LONGEST
        and not UNSEEN.search(name)
        and not any(step in ("", ".", "..") for step in name.split("/"))
    )


@contextmanager
def answers_checked(hub: Any) -> Iterator[None]:
    """Check the headers of all answers within the block, if huggingface_hub asks through httpx (from 1.0 on)."""
    session = hub.get_session() if hasattr(hub, "get_session") else None
    hooks = getattr(session, "event_hooks", None)
    if session is None or hooks is None:
        yield
        return
    session.event_hooks = {**hooks, "response": [*hooks.get("response", ()), _check]}
    try:
        yield
    finally:
        session.event_hooks = hooks


def _check(response: Any) -> None:
    for header in NAMING:
        value = response.headers.get(header)
        if value is not None and (not PLAIN.fullmatch(value) or ".." in value):
            raise CheckpointError(
                f"{response.request.url}: answers with {header}: {value[:80]!r}, which is no name of a file's content",
                hint="see HF_ENDPOINT: which server does it name?",
            )
