"""What a stopped command says of that which is kept: only what is there is said to be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def telling_what_is_kept(out: str, kind: str, scratch: str | None) -> Iterator[None]:
    """Say, should the command be stopped inside, what of an unfinished work is kept, and how to go on.

    Parameters
    ----------
    out, kind, scratch
        As for :class:`streamcurate.neighbors.unfinished.UnfinishedWork`.
    """
    from streamcurate.cli.signals import set_resume_hint
    from streamcurate.neighbors.unfinished import UnfinishedWork

    set_resume_hint("nothing was finished that could be kept; the same command begins anew")
    try:
        yield
    except BaseException:
        work = UnfinishedWork(out, kind, scratch)
        if work.anything_finished:
            set_resume_hint(f"what is done is kept in {work.folder}; give the same command again to go on")
        raise
