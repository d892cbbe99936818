"""The sentences of `soup demo text`: Hutto and Gilbert (ICWSM 2014) had them rated by people, from -4 to 4.

    soup demo text FOLDER

They come from the source distribution of vaderSentiment, which alone carries the ratings. The task is the sign.
"""

from __future__ import annotations

import html
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

from soupcli.demo import packages
from soupcli.errors import SoupError
from soupcli.progress import Progress, silent

PACKAGE = packages.Package(
    name="vaderSentiment",
    version="3.3.2",
    module="vaderSentiment",
    archive="vaderSentiment-3.3.2.tar.gz",
    sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
)
RATINGS = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
SOURCES = {  # name of the set: file of ratings
    "movies": "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt",
    "amazon": "hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt",
    "tweets": "hutto_ICWSM_2014/tweets_GroundTruth.txt",
    "editorials": "hutto_ICWSM_2014/nytEditorialSnippets_GroundTruth.txt",
}
AGAIN = f"remove {PACKAGE.archive} from the cache and try again"
LABELS = ("negative", "positive")
NEUTRAL = 0.5  # a rating nearer to zero has no clear sign
WORDS = 24  # longer sentences are left out: they cost most and teach little more


@dataclass(frozen=True)
class Sentence:
    """One line of a set."""

    sentence: str
    label: int  # index into LABELS


def load(progress: Progress = silent) -> dict[str, list[Sentence]]:
    """Returns the sentences of every source, by the names of SOURCES. Raises SoupError if they cannot be had."""
    ratings = packages.read(PACKAGE, [RATINGS], progress)[RATINGS]
    try:
        with tarfile.open(fileobj=io.BytesIO(ratings)) as archive:
            files = {name: archive.extractfile(member) for name, member in SOURCES.items()}
            return {name: parse(file.read(), SOURCES[name]) for name, file in files.items() if file is not None}
    except (tarfile.TarError, KeyError) as cause:
        raise SoupError(f"{RATINGS}: cannot be read: {cause}", hint=AGAIN) from cause


def parse(data: bytes, source: str) -> list[Sentence]:
    """Returns the short sentences of a file of ratings that are clearly praise or complaint, in the file's order.

    A line is `id TAB rating TAB text`, in UTF-8 or, here and there, Latin-1. Raises SoupError for any other.
    """
    sentences = []
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            _, rating, text = decode(line).split("\t")
            value = float(rating)
        except ValueError as cause:
            problem = f"{source}:{number}: expected id, rating and text between tabs"
            raise SoupError(problem, hint=AGAIN) from cause
        words = html.unescape(text).split()
        if abs(value) >= NEUTRAL and 0 < len(words) <= WORDS:
            sentences.append(Sentence(" ".join(words), int(value > 0)))
    return sentences


def decode(line: bytes) -> str:
    """Returns the line as text, Latin-1 if it is not UTF-8."""
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("latin-1")


def deal(
    sources: Mapping[str, Sequence[Sentence]], counts: Mapping[str, int], shifted: int, seed: int
) -> dict[str, list[Sentence]]:
    """Returns the sets by name, in random order, no two of which share a sentence (case and punctuation aside).

    `counts`: the sets that movie reviews make, one after the other; every other source makes one of `shifted`
    sentences or fewer.
    """
    generator = torch.Generator().manual_seed(seed)
    seen: set[str] = set()
    distinct: dict[str, list[Sentence]] = {}
    for name, rows in sources.items():
        distinct[name] = []
        for index in torch.randperm(len(rows), generator=generator).tolist():
            key = "".join(filter(str.isalnum, rows[index].sentence.casefold()))
            if key not in seen:
                seen.add(key)
                distinct[name].append(rows[index])
    movies = iter(distinct.pop("movies"))
    parts = {name: rows[:shifted] for name, rows in distinct.items()}
    return {**parts, **{name: list(islice(movies, count)) for name, count in counts.items()}}


def read(path: Path) -> list[Sentence]:
    """Returns the sentences of a file of JSON lines."""
    return [Sentence(**json.loads(line)) for line in path.read_bytes().splitlines()]
