"""The command ``streamcurate``: finds the command asked for, runs it, and turns what happened into an exit status."""

from __future__ import annotations

import difflib
import importlib
import logging
import sys
import traceback
from collections.abc import Mapping, Sequence

import click

from streamcurate.cli.errors import INTERRUPTED, TERMINATED, USAGE, announce, complain, explain, hide_broken_pipe
from streamcurate.cli.signals import Stopped, Terminated, resume_hint, termination
from streamcurate.version import __version__

# Name and summary of every command; the command itself is `command` in streamcurate/cli/<name>.py. The summaries stand
# here so that --help needs none of those files.
COMMANDS: dict[str, str] = {
    "ingest": "Read embeddings from files into a Zarr store.",
    "inspect": "Show what a store or a run holds.",
    "plan": "Show what a run would take, before it runs.",
    "cluster": "Build the hierarchy; the same line again resumes it.",
    "watch": "Show the progress of a run that another process makes.",
    "sample": "Draw a balanced subset from a finished run.",
    "explain": "Show how a draw's quotas come about, down a branch.",
    "dedup": "Find near-duplicates, and which row of each group to keep.",
    "retrieve": "Find the rows near a set of seeds.",
    "exclude": "List the rows that are not near unwanted examples.",
    "rows": "Unite, intersect or subtract lists of rows.",
    "mix": "Draw from several sources into one export.",
    "report": "Write one page that shows what a run and a draw did.",
    "assign": "Label new rows with a finished tree.",
    "extend": "Add new rows to a finished tree, in a run of its own.",
    "demo": "Curate two small pools into a folder, with pictures.",
}


class ReaderGone(Exception):  # noqa: N818 (nothing has gone wrong)
    """Nobody reads standard output any more, as after ``| head``."""


class LazyGroup(click.Group):
    """Commands that are imported when they are asked for, so that each pays for its own imports only."""

    def __init__(self, *, modules: Mapping[str, str], package: str, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.modules = modules
        self.package = package

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order of a user's day."""
        return list(self.modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command by its name."""
        if cmd_name not in self.modules:
            near = difflib.get_close_matches(cmd_name, self.modules, 1)
            if near and not ctx.resilient_parsing:
                ctx.fail(f"No such command '{cmd_name}'; did you mean '{near[0]}'?")
            return None
        command = importlib.import_module(f"{self.package}.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self.modules.items()))

    def invoke(self, ctx: click.Context) -> None:
        """Run the command; a signal that stops it leaves as :class:`Stopped`, with the command's own hint.

        What click would make something else of is renamed here: it takes the end of any file for a user who gives up,
        and ends the process where a reader has gone. A command's result is dropped: it is no exit status.
        """
        try:
            with termination():
                super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise Stopped(INTERRUPTED, resume_hint(ctx)) from error
        except Terminated as error:
            raise Stopped(TERMINATED, resume_hint(ctx)) from error
        except EOFError as error:
            raise RuntimeError("a file ended too early") from error
        except BrokenPipeError as error:
            raise ReaderGone from error


@click.group(
    cls=LazyGroup,
    modules=COMMANDS,
    package="streamcurate.cli",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="streamcurate", message="%(prog)s %(version)s")
def streamcurate() -> None:
    """Make a smaller, balanced, diverse training set out of a huge pool of embeddings."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Without the program's name; those of the process by default.

    Returns
    -------
    int
        Exit status: 0 done, 2 something the user can mend, 130 Ctrl-C, 143 SIGTERM, 1 anything else.
    """
    return run(streamcurate, arguments)


def run(group: click.Group, arguments: Sequence[str] | None = None) -> int:
    """Run a group of commands as :func:`main` does with ours."""
    try:
        result = group.main(arguments, prog_name="streamcurate", standalone_mode=False)
        sys.stdout.flush()
    except Stopped as stopped:
        return _stopped(stopped.exit_code, stopped.hint)
    except (click.Abort, KeyboardInterrupt):
        # Before the command began, or at a question to the user.
        return _stopped(INTERRUPTED, None)
    except Terminated:
        return _stopped(TERMINATED, None)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return USAGE
    except (ReaderGone, BrokenPipeError):
        hide_broken_pipe()
        return 1
    except Exception as error:
        message = explain(error)
        if message is None:
            traceback.print_exc()
            return 1
        complain(message)
        return USAGE
    # --help and --version end with a status; commands end with nothing.
    return result if isinstance(result, int) else 0


def _stopped(exit_code: int, hint: str | None) -> int:
    announce("stopped" if hint is None else f"stopped; {hint}")
    # Reads under way are dropped when the process ends; that each of them was is no news to who stopped it.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
