"""``streamcurate watch``: the progress of a run that another process makes."""

from __future__ import annotations

import json

import click


@click.command("watch")
@click.argument("run", type=click.Path())
@click.option("--once", is_flag=True, help="Print how it stands now, and end.")
@click.option("--json", "as_json", is_flag=True, help="Print how it stands now as one JSON object, and end.")
def command(run: str, once: bool, as_json: bool) -> None:
    """Show the progress of RUN, which another process makes, until it ends.

    RUN is on this machine, or on a file system that both share; nothing is written there. The status is 0 when the run
    is finished, and 2 when it was stopped or its process is gone.
    """
    from streamcurate.cli.signals import set_resume_hint
    from streamcurate.display.watching import as_mapping, look, summary, watch

    now = look(run)
    if as_json:
        click.echo(json.dumps(as_mapping(now)))
        return
    if once or now.status == "finished":
        click.echo("\n".join(summary(now)))
        return
    set_resume_hint("the run itself goes on")
    watch(run)
    click.echo(summary(look(run))[0])  # the rest has been shown
