"""`soup uniform --ckpts P... [--val V...]`: the mean of all; needs no model and no validation set."""

from __future__ import annotations

import typer

from soupcli.cli.commands import Invocation, command
from soupcli.cli.options import SoupOptions


def register(app: typer.Typer) -> None:
    """Adds the command to the app."""
    command(app, "uniform", examples="soup uniform --ckpts runs/*/ --out soup/")(uniform)


def uniform(options: SoupOptions, invocation: Invocation) -> int:
    """Average all checkpoints; needs no model and no validation set."""
    from soupcli.checkpoints.writing import check_free
    from soupcli.cli.cooking import Cooked, serve
    from soupcli.cli.plan import Plan, show_plan
    from soupcli.cli.session import Row, Session
    from soupcli.soups.uniform import uniform as mean_of_all

    with Session("uniform", options, invocation) as session:
        session.check_mixable()
        mixture = mean_of_all(session.sharing(session.checkpoints[0]), dtype=session.output_dtype)
        if options.dry_run:
            return show_plan(session, Plan(len(session.sets), mixture))
        check_free(session.recipe.out, force=options.force)
        session.hashes.start(session.checkpoints)
        with session.phase("evaluate"):
            [scores] = session.scores([Row("uniform soup", mixture)])
        return serve(session, options, Cooked(mixture, scores, [(member, {}) for member in session.checkpoints]))
