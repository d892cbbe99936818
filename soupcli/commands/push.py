"""`soup push soup/ org/name`: uploads a soup to the Hub, if it is what its report says.

A model that holds other files than a soup's is refused. Files of an earlier soup there are replaced.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soupcli.checkpoints.hub import COMMIT
from soupcli.cli.options.without_checkpoints import VerifyOptions
from soupcli.cli.parsing import ANSWER_NO, DONE, Invocation
from soupcli.commands.verify import checked, is_verified, show_checks
from soupcli.environment import import_extra
from soupcli.errors import OutputError, SoupError, UsageError
from soupcli.files.json_text import dump_json, plain
from soupcli.mixing.old_soup import CARD, REPORT
from soupcli.output import console
from soupcli.report.portable import in_short, shorter_names
from soupcli.report.report import Report
from soupcli.report.report_file import read_report
from soupcli.wording import HUB_ID

if TYPE_CHECKING:
    from collections.abc import Mapping

    from soupcli.cli.options.without_checkpoints import PushOptions

SCHEMA = "soup-push/1"
TOKEN = "uploading needs a token that may write: hf auth login, or HF_TOKEN"
HUBS_OWN = frozenset({".gitattributes"})  # in every model


def push(options: PushOptions, _invocation: Invocation) -> int:
    """Upload a soup's files to a model of the Hub, which is made if it is not there.

    Returns 1, and uploads nothing, if the soup is not what its report says. Raises UsageError for a word that is not
    an id, MissingExtra without huggingface_hub, and OutputError if the Hub refuses.
    """
    match = HUB_ID.fullmatch(options.to)
    if match is None or match["revision"] is not None:
        raise UsageError(f"{options.to}: not the id of a model on the Hub", hint="org/name, and --revision BRANCH")
    if options.revision is not None and COMMIT.fullmatch(options.revision):
        raise UsageError(f"--revision {options.revision}: a commit, nothing can be added to it", hint="name a branch")
    hub = import_extra("huggingface_hub", extra="hub")
    verifying = VerifyOptions(soup=options.soup, quiet=options.quiet, as_json=options.as_json)
    checks = checked(verifying)
    if not is_verified(checks):
        show_checks(verifying, checks, verified=False)
        return ANSWER_NO
    if hub.get_token() is None:
        raise OutputError(f"{options.to}: not uploaded: there is no token of the Hub", hint=TOKEN)
    folder = options.soup if options.soup.is_dir() else options.soup.parent
    commit = _uploaded(hub, portable_files(folder), options)
    if options.as_json:
        document = {"schema": SCHEMA, "soup": str(options.soup), "to": options.to, "commit": commit.oid}
        console.print_json(dump_json({**document, "url": commit.commit_url}))
    else:
        console.print_lines([str(commit.commit_url)])
    return DONE


def portable_files(folder: Path) -> dict[str, bytes | Path]:
    """Return the soup's files by name. Report and card are without paths of this machine, other files are left out."""
    report = read_report(folder / REPORT)
    assert report.soup is not None
    names = shorter_names(plain(report.model_dump()), Path.cwd())
    files: dict[str, bytes | Path] = {name: folder / name for name in report.soup.files}
    if not names:
        return files
    document = in_short(plain(report.model_dump()), names)
    if CARD in files:
        card = in_short((folder / CARD).read_text("utf-8"), names).encode()
        files[CARD] = card
        document["soup"]["file_hashes"][CARD] = f"sha256:{hashlib.sha256(card).hexdigest()}"
    files[REPORT] = Report.model_validate(document).to_json().encode()
    return files


def _uploaded(hub: Any, files: Mapping[str, bytes | Path], options: PushOptions) -> Any:
    """Upload the files and return the commit. Raises OutputError if the model has files that no soup wrote."""
    if not sys.stderr.isatty():
        import_extra("huggingface_hub.utils", extra="hub").disable_progress_bars()
    api = hub.HfApi()
    try:
        api.create_repo(options.to, private=options.private or None, exist_ok=True)
        ours = _replaced(hub, api, options)
        if options.revision is not None:
            api.create_branch(options.to, branch=options.revision, exist_ok=True)
        operations = [hub.CommitOperationDelete(name) for name in sorted(ours - files.keys())]
        operations += [
            hub.CommitOperationAdd(name, str(file) if isinstance(file, Path) else file)
            for name, file in sorted(files.items())
        ]
        return api.create_commit(
            options.to, operations, revision=options.revision, commit_message="Upload a model soup"
        )
    except SoupError:
        raise
    except Exception as cause:
        first = next(iter(str(cause).strip().splitlines()), "") or type(cause).__name__
        raise OutputError(f"{options.to}: not uploaded: {first}", hint=TOKEN) from cause


def _replaced(hub: Any, api: Any, options: PushOptions) -> set[str]:
    """Return the files of an earlier soup on the branch. Raises OutputError for other files, unless --force."""
    branch = options.revision
    try:
        there = set(api.list_repo_files(options.to, revision=branch))
    except hub.errors.RevisionNotFoundError:  # a new branch begins with the files of the main one
        branch = None
        there = set(api.list_repo_files(options.to))
    ours = _of_a_soup(api, options.to, branch) & there if REPORT in there else set[str]()
    others = sorted(there - ours - HUBS_OWN)
    if others and not options.force:
        shown = ", ".join(others[:4]) + (", ..." if len(others) > 4 else "")
        raise OutputError(
            f"{options.to}: holds files that are of no soup: {shown}",
            hint="push to another model, or --force: a file of the same name is replaced, others stay beside the soup",
        )
    return ours


def _of_a_soup(api: Any, name: str, branch: str | None) -> set[str]:
    """Return the files that the report on the branch lists, or nothing if it is no report."""
    try:
        report = read_report(Path(api.hf_hub_download(name, REPORT, revision=branch)), ignore_unknown=True)
    except SoupError:
        return set()
    return set(report.soup.files) if report.soup is not None else set()
