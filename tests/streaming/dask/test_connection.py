"""Making and finding clusters."""

from __future__ import annotations

import os
import signal

import pytest

from streamcurate.errors import ConfigError, InputError, RunError
from streamcurate.streaming.budget import SMALLEST_LIMIT
from streamcurate.streaming.dask import connect, connection


@pytest.mark.parametrize(
    ("address", "private"),
    [
        ("tcp://127.0.0.1:8786", True),
        ("127.0.0.1:8786", True),
        ("tcp://[::1]:8786", True),
        ("localhost:8786", True),
        ("tcp://10.0.0.3:8786", False),
        ("head-node:8786", False),
    ],
)
def test_open_ports_are_pointed_out(address, private, monkeypatch):
    notes = []
    monkeypatch.setattr(connection, "_CONNECT_SECONDS", 0.01)

    def refuse(*arguments, **options):
        raise OSError("nobody")

    monkeypatch.setattr(connection, "Client", refuse)
    with (
        pytest.raises(RunError, match=r"no Dask scheduler answers \(nobody\)"),
        connect(scheduler=address, note=notes.append),
    ):
        pass
    assert bool(notes) is not private
    assert all("whoever reaches this port can run code on the workers; use tls://" in note for note in notes)


def test_one_way_only(tmp_path):
    with pytest.raises(ConfigError, match="--workers and --scheduler-file: give one of them"), connect(2, None, "f"):
        pass
    (tmp_path / "f.json").write_text('{"id": "Scheduler-1"}')
    with (
        pytest.raises(InputError, match=r"no scheduler's file \(KeyError"),
        connect(scheduler_file=tmp_path / "f.json"),
    ):
        pass


def test_a_share_of_the_memory_for_each(monkeypatch):
    monkeypatch.setattr(connection, "available_bytes", lambda: 20 << 30)
    assert connection.worker_share(4, None) == 2 << 30
    assert connection.worker_share(4, 7 << 30) == 7 << 30
    assert connection.worker_share(400, None) == SMALLEST_LIMIT


def test_workers_do_not_see_interrupts(client):
    """Ctrl-C reaches all processes of a terminal: only the one that leads may act on it."""

    def blocked() -> bool:
        import signal

        return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())

    for pid in [nanny.pid for nanny in client.cluster.workers.values()]:
        os.kill(pid, signal.SIGINT)
    assert set(client.run(blocked).values()) == {True}
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
