from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from streamcurate.errors import RunError
from streamcurate.runs import RunLock

HOLD = """
import sys, time
from streamcurate.runs import RunLock
with RunLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_second_writer_is_told_who_the_first_is(tmp_path):
    told = rf"is being written by process {os.getpid()} on \S+ \(since .*; wait .*, or write to another place$"
    with RunLock(tmp_path), pytest.raises(RunError, match=told):
        RunLock(tmp_path).acquire()


def test_lock_is_free_again_after_release(tmp_path):
    with RunLock(tmp_path):
        pass
    lock = RunLock(tmp_path)
    lock.acquire()
    lock.release()
    lock.release()
    with lock:
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


def test_lock_is_free_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), RunLock(tmp_path):
        _ = 1 / 0
    with RunLock(tmp_path):
        pass


def test_held_lock_cannot_be_taken_twice_by_its_owner(tmp_path):
    with RunLock(tmp_path) as lock, pytest.raises(ValueError, match="held already"):
        lock.acquire()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_lock_dies_with_its_process(tmp_path, end):
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "held\n"
            with pytest.raises(RunError, match=f"process {process.pid} on"):
                RunLock(tmp_path).acquire()
        finally:
            process.send_signal(end)
            process.wait()
    with RunLock(tmp_path):
        pass


def test_forked_child_does_not_keep_the_lock(tmp_path):
    lock = RunLock(tmp_path)
    lock.acquire()
    ready, resume = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(resume)
        os.read(ready, 1)
        os._exit(0)
    try:
        # The child lives, and the parent still holds the lock.
        with pytest.raises(RunError):
            RunLock(tmp_path).acquire()
        lock.release()
        with RunLock(tmp_path):
            pass
    finally:
        os.close(resume)
        os.close(ready)
        os.waitpid(child, 0)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"{}"])
def test_unreadable_signature_is_no_obstacle(tmp_path, content):
    with RunLock(tmp_path):
        (tmp_path / ".lock").write_bytes(content)
        with pytest.raises(RunError, match="by another process"):
            RunLock(tmp_path).acquire()
    with RunLock(tmp_path):
        pass


def test_directory_that_is_not_there(tmp_path):
    with pytest.raises(RunError, match=re.escape(f"{tmp_path / 'absent'}: cannot be written")):
        RunLock(tmp_path / "absent").acquire()


def test_a_lock_on_a_file_that_was_removed(tmp_path):
    """Held, it keeps nobody out: others lock the file that is there by now."""
    lock, other = RunLock(tmp_path), RunLock(tmp_path)
    assert not lock.in_place
    with lock:
        assert lock.in_place
        (tmp_path / ".lock").unlink()
        assert not lock.in_place
        with other:
            assert other.in_place
            assert not lock.in_place
