"""`soup push soup/ org/name`: uploads a soup to the Hub, if it is what its report says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soupcli.checkpoints.hub import COMMIT, literal
from soupcli.cli.options import VerifyOptions
from soupcli.cli.parsing import ANSWER_NO, DONE, Invocation
from soupcli.commands.verify import checked, is_verified, show_checks
from soupcli.environment import import_extra
from soupcli.errors import OutputError, UsageError
from soupcli.files.json_text import dump_json
from soupcli.mixing.old_soup import REPORT
from soupcli.output import console
from soupcli.report.report_file import read_report
from soupcli.wording import HUB_ID

if TYPE_CHECKING:
    from soupcli.cli.options import PushOptions

SCHEMA = "soup-push/1"


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
    folder = options.soup if options.soup.is_dir() else options.soup.parent
    commit = _uploaded(hub, folder, options)
    if options.as_json:
        document = {"schema": SCHEMA, "soup": str(options.soup), "to": options.to, "commit": commit.oid}
        console.print_json(dump_json({**document, "url": commit.commit_url}))
    else:
        console.print_lines([str(commit.commit_url)])
    return DONE


def _uploaded(hub: Any, folder: Path, options: PushOptions) -> Any:
    """The commit that holds the soup's files, and no other file of its folder."""
    soup = read_report(folder / REPORT).soup
    assert soup is not None
    if not sys.stderr.isatty():
        import_extra("huggingface_hub.utils", extra="hub").disable_progress_bars()
    api = hub.HfApi()
    try:
        api.create_repo(options.to, private=options.private or None, exist_ok=True)
        if options.revision is not None:
            api.create_branch(options.to, branch=options.revision, exist_ok=True)
        return api.upload_folder(
            repo_id=options.to,
            folder_path=folder,
            revision=options.revision,
            allow_patterns=[literal(name) for name in soup.files],
            commit_message="Upload a model soup",
        )
    except Exception as cause:
        first = next(iter(str(cause).strip().splitlines()), "") or type(cause).__name__
        raise OutputError(
            f"{options.to}: not uploaded: {first}", hint="uploading needs a token that may write: hf auth login"
        ) from cause
