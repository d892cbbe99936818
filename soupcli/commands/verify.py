"""`soup verify soup/`: checks whether a soup is what its report says, and whether it can be made again."""

from __future__ import annotations

import filecmp
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from soupcli.checkpoints.formats.safetensors import read_header
from soupcli.checkpoints.hashes import ContentHashes
from soupcli.checkpoints.hub import pinned
from soupcli.checkpoints.open import open_checkpoint
from soupcli.checkpoints.side_files import leads_inside
from soupcli.cli.parsing import ANSWER_NO, DONE, Invocation
from soupcli.environment import cache_folder
from soupcli.errors import SoupError, is_of_system
from soupcli.files.json_text import dump_json
from soupcli.files.lock import finish_abandoned
from soupcli.files.reading import FileVersion, hash_of_files, sha256
from soupcli.files.unfinished import scratch_folder
from soupcli.mixing.old_soup import REPORT, hash_of_file, is_plain
from soupcli.mixing.soup_folder import SoupFolder
from soupcli.output import console
from soupcli.output.progress_bars import ProgressReporter
from soupcli.report.report_file import read_report
from soupcli.report.tables import Column, Table
from soupcli.run.finish_folder import add_card
from soupcli.run.rewrite import how_to_open, mixed, mixture_of_report, recipe_of
from soupcli.run.stranger import check_soup, check_trusted

if TYPE_CHECKING:
    from soupcli.cli.options.without_checkpoints import VerifyOptions
    from soupcli.recipe.recipe import Recipe
    from soupcli.report.report import Report
    from soupcli.report.soups import Soup

SCHEMA = "soup-verification/1"
HASH = re.compile(r"(sha256:[0-9a-f]{12})[0-9a-f]{52}")  # a table shows its beginning, --json all of it


class Check(NamedTuple):
    """One thing that was checked. `as_reported` is None if it is missing."""

    what: str
    as_reported: bool | None
    found: str


def verify(options: VerifyOptions, _invocation: Invocation) -> int:
    """Check a soup against its report and its ingredients. Returns 1 if something is not as reported."""
    checks = checked(options)
    verified = is_verified(checks)
    show_checks(options, checks, verified=verified)
    return DONE if verified else ANSWER_NO


def is_verified(checks: Sequence[Check]) -> bool:
    """Whether everything that is there is as reported. What is missing does not count."""
    return all(one.as_reported is not False for one in checks)


def checked(options: VerifyOptions) -> list[Check]:
    """Run all checks, in the order in which they are shown.

    Raises UsageError if there is no report of a soup, and if code that it names would have to run.
    """
    finish_abandoned(options.soup)
    file = options.soup / REPORT if options.soup.is_dir() else options.soup
    report = read_report(file)
    soup = check_soup(report, file)
    recipe = recipe_of(report, file)
    if options.rebuild:
        check_trusted(report, recipe, file, trust_code=options.trust_code)
    hashes = ContentHashes(cache_folder() / "hashes", fresh=True)
    try:
        checks = [*_weights(file.parent, report, soup), *_members(options, report, soup, recipe, hashes)]
        if options.rebuild:
            checks += _rebuilt(options, file, report, recipe, hashes)
    finally:
        hashes.close()
    return checks


def _weights(folder: Path, report: Report, soup: Soup) -> Iterator[Check]:
    """Check that every file is there, that weights have the reported hash, and headers the reported members."""
    missing = [name for name in soup.files if not _is_there(folder, name)]
    yield Check("files", not missing, f"all {len(soup.files)} found" if not missing else f"missing: {missing[0]}")
    is_torch = soup.format != "safetensors"
    names = [name for name in weight_files(soup) if name not in missing]
    if not names:
        yield Check("weights", False, "none found")
        return
    weights = {name: FileVersion.of(folder / name) for name in names}
    found = hash_of_files({name: sha256(file) for name, file in weights.items()})
    yield Check("weights", found == soup.hash, found if found == soup.hash else f"{found}, reported {soup.hash}")
    for name, reported_hash in soup.file_hashes.items():
        if name not in names and name not in missing and hash_of_file(folder, name) != reported_hash:
            yield Check(name, False, f"{hash_of_file(folder, name)}, reported {reported_hash}")
    known = report.hashes
    expected = sorted(
        (known.get(member, ""), weight) for member, weight in zip(soup.members, soup.weights, strict=True)
    )
    for name, file in weights.items() if not is_torch else ():
        said = _said_members(file)
        if said != expected:
            same = said is not None and [member for member, _ in said] == [member for member, _ in expected]
            yield Check(f"header of {name}", False, f"names other {'weights' if same else 'members'} than the report")


def weight_files(soup: Soup) -> list[str]:
    """Return the files that the soup's hash covers. Reports of earlier versions do not list them."""
    if soup.weight_files:
        return [name for name in soup.weight_files if name in soup.files]
    main = Path(soup.path).name
    return [name for name in soup.files if (name == main if soup.format == "torch" else name.endswith(".safetensors"))]


def _is_there(folder: Path, name: str) -> bool:
    """Whether the report names a file inside the soup's folder, not a path or a link that leads out of it."""
    return is_plain(name) and (folder / name).is_file() and leads_inside(folder / name, folder)


def _said_members(file: FileVersion) -> list[tuple[str, float]] | None:
    """Return the members' hashes and weights that the header of the file names."""
    try:
        said = json.loads(read_header(file)[2]["soup"])
        return list(zip(said["members"], said["weights"], strict=True))
    except (SoupError, KeyError, ValueError, TypeError, RecursionError) as error:
        if is_of_system(error):
            raise
        return None


def _members(
    options: VerifyOptions, report: Report, soup: Soup, recipe: Recipe, hashes: ContentHashes
) -> Iterator[Check]:
    """Check that each member that is still there has the reported hash."""
    known = report.hashes
    commits = report.revisions
    kept_from = [soup.kept_from] if soup.kept_from is not None else []
    for path in dict.fromkeys([*soup.members, *kept_from]):
        commit = commits.get(path)
        if commit is None and not Path(path).exists():
            yield Check(path, None, "not there any more")
            continue
        try:
            how = how_to_open(options, report, recipe, path)._replace(cached=True)
            found = hashes.of(open_checkpoint(pinned(path, commit), how))
        except SoupError as error:
            if is_of_system(error):
                raise  # not an answer: nothing is known of the file
            yield Check(path, False if commit is None else None, str(error))
            continue
        expected = known.get(path, "not among the ingredients")
        yield Check(path, found == expected, found if found == expected else f"{found}, reported {expected}")


def _rebuilt(
    options: VerifyOptions, file: Path, report: Report, recipe: Recipe, hashes: ContentHashes
) -> Iterator[Check]:
    """Mix the soup again from the same members, and check that weights and side files have the same bytes."""
    try:
        mixture = mixture_of_report(options, report, file, recipe, hashes)
    except SoupError as error:
        if is_of_system(error):
            raise
        yield Check("rebuilt", False, str(error))
        return
    with (
        ProgressReporter(silent=options.quiet) as progress,
        scratch_folder() as aside,
        SoupFolder(aside / "soup", force=False) as folder,
    ):
        filled = mixed(folder, report, recipe, mixture, hashes, progress)
        with_card = add_card(folder, report, mixture).soup
        named = [*filled.files, *(with_card.file_hashes if with_card is not None else ())]
        names = [name for name in dict.fromkeys(named) if name != REPORT and (folder.path / name).is_file()]
        others = [name for name in names if not _same(file.parent / name, folder.path / name)]
    yield Check("rebuilt", not others, f"differs in {', '.join(others)}" if others else f"{len(names)} files identical")


def _same(one: Path, other: Path) -> bool:
    return one.is_file() and filecmp.cmp(one, other, shallow=False)


def show_checks(options: VerifyOptions, checks: list[Check], *, verified: bool) -> None:
    """Print what was checked."""
    if options.as_json:
        document = {"schema": SCHEMA, "soup": str(options.soup), "verified": verified}
        console.print_json(dump_json({**document, "checks": [one._asdict() for one in checks]}))
    elif options.quiet:
        console.print_lines([one.what for one in checks if one.as_reported is False])
    else:
        rows: list[list[str]] = []
        for what, as_reported, found in checks:
            rows.append([what, {True: "yes", False: "NO", None: "-"}[as_reported], HASH.sub(r"\1...", found)])
        console.print_report([Table("Checks", [Column("checked"), Column("as reported"), Column("found")], rows)])
