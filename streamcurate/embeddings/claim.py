"""The right to write a place in an object store, where there are no locks: one small object, replaced conditionally.

Whoever holds the claim wrote the object last. It is replaced only by who knows its present version, so that a second
writer, or one that was thought dead and wakes up, is told at its next word. What the object says beside the claim is
its user's.
"""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from datetime import UTC, datetime
from typing import Any

import psutil

from streamcurate import objects
from streamcurate.errors import InputError, RunError

# A claim whose process cannot be looked at, being on another machine, counts as given up after this time without a
# word; words come this often. A chunk that is sent for longer is a dead connection.
SILENCE_SECONDS = 15 * 60
WORD_SECONDS = 60
# Others come in between, but each of them only once.
_ROUNDS = 5
# Claims of this process, among them those of other threads.
_held: set[str] = set()


class Claim:
    """One object, held by one process at a time.

    Parameters
    ----------
    url : str
    what : str
        How messages call the place.
    """

    def __init__(self, url: str, what: str) -> None:
        self.url, self._what = url, what
        self._token = uuid.uuid4().hex
        self._serial = 0
        self._found: objects.Found | None = None
        self._spoken = 0.0

    @property
    def held(self) -> bool:
        """Whether this process holds it, as far as it knows."""
        return self._found is not None

    def take(self) -> dict[str, Any] | None:
        """Take the claim; what the object says, None where there was none.

        Raises
        ------
        RunError
            Another process holds it.
        InputError
            Something else lies there.
        """
        try:
            return self._take()
        except BaseException:
            # Interrupted, perhaps behind the request: what is there is nobody's, and the next is to see that.
            _held.discard(self._token)
            raise

    def _take(self) -> dict[str, Any] | None:
        for _ in range(_ROUNDS):
            found = objects.read_found(self.url)
            value: dict[str, Any] | None = None
            if found is not None:
                value = _parsed(found.data)
                if value is None:
                    raise InputError(f"{self.url}: in the way, and no claim; move it or choose another destination")
                self._require_free(value.get("owner"))
            if self._put(value or {}, found):
                return value
        raise RunError(f"{self._what}: other processes begin at the same time; wait for them, and try again")

    def say(self, value: dict[str, Any]) -> None:
        """Replace what the object says.

        Raises
        ------
        RunError
            Another process has taken the claim.
        """
        if self._found is None or not self._put(value, self._found):
            found = objects.read_found(self.url)
            owner = None if found is None else (_parsed(found.data) or {}).get("owner")
            raise RunError(
                f"{self._what}: {_said(owner)} has taken it over; this process has stopped and leaves it alone"
            )

    def require(self, value: dict[str, Any]) -> None:
        """Make sure that it is held still, by one small request.

        Raises
        ------
        RunError
            Another process has taken the claim.
        """
        now = objects.status(self.url)
        tag = None if self._found is None else self._found.version.get("e_tag")
        # With quotation marks here and without them there.
        if now is None or now.etag is None or tag is None or now.etag.strip('"') != tag.strip('"'):
            self.say(value)

    @property
    def silent(self) -> bool:
        """Whether it is time for another word."""
        return self.held and time.monotonic() - self._spoken > WORD_SECONDS

    def release(self, value: dict[str, Any] | None) -> None:
        """Give the claim back and leave what the object says; None: remove the object."""
        found, self._found = self._found, None
        _held.discard(self._token)
        if found is None:
            return
        if value is not None:
            self._replace(self._data(value, None), found)
        elif self._replace(self._data({}, self._me()), found) is not None:  # nobody else's: nobody takes it meanwhile
            objects.delete(self.url)

    def _put(self, value: dict[str, Any], found: objects.Found | None) -> bool:
        _held.add(self._token)
        # Until it is known to be replaced, what was there before counts: an interruption in between changes nothing.
        self._found = self._replace(self._data(value, self._me()), found)
        self._spoken = time.monotonic()
        if self._found is None:
            _held.discard(self._token)
        return self._found is not None

    def _replace(self, data: bytes, found: objects.Found | None) -> objects.Found | None:
        put = objects.replace(self.url, data, found)
        if put is None and found is not None:
            # An earlier word of ours may have arrived although it was said to have failed.
            now = objects.read_found(self.url)
            word = None if now is None else (_parsed(now.data) or {}).get("word")
            if isinstance(word, list) and word[:1] == [self._token]:
                put = objects.replace(self.url, data, now)
        return put

    def _data(self, value: dict[str, Any], owner: dict[str, Any] | None) -> bytes:
        # The serial number and the token make it unlike anything that anybody else may put.
        self._serial += 1
        said = {"owner": owner, "word": [self._token, self._serial]}
        return (json.dumps(value | said, indent=1) + "\n").encode()

    def _me(self) -> dict[str, Any]:
        process = psutil.Process()
        return {
            "token": self._token,
            "machine": _machine(),
            "host": socket.gethostname(),
            "pid": process.pid,
            "started": process.create_time(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def _require_free(self, owner: Any) -> None:
        """Refuse a claim that another process holds."""
        if not isinstance(owner, dict) or _is_dead(owner):
            return
        if owner.get("machine") == _machine():
            raise RunError(
                f"{self._what}: is being written by {_said(owner)}; wait for it to end, stop it, or choose another "
                "destination"
            )
        silent = self._silence()
        if silent < SILENCE_SECONDS:
            raise RunError(
                f"{self._what}: is being written by {_said(owner)}, last heard of {silent:.0f} seconds ago; wait for "
                f"it to end or stop it. If it is gone, this command takes over {SILENCE_SECONDS // 60:.0f} minutes "
                f"after its last word, or at once when {self.url} and all of {self._what} are removed"
            )

    def _silence(self) -> float:
        """Seconds since the object was written, by the clock of the store."""
        clock = f"{self.url}.clock-{self._token}"
        objects.write(clock, b"")
        try:
            now, then = objects.status(clock), objects.status(self.url)
        finally:
            objects.delete(clock)
        if now is None or then is None:  # it was released this moment
            return 0.0
        return (now.modified_ns - then.modified_ns) / 1e9


def _is_dead(owner: dict[str, Any]) -> bool:
    """Whether a process of this machine is gone; False for those of others."""
    if owner.get("machine") != _machine():
        return False
    if owner.get("pid") == os.getpid():
        return owner.get("token") not in _held
    try:
        return bool(psutil.Process(owner["pid"]).create_time() != owner.get("started"))
    except (psutil.Error, KeyError, TypeError, ValueError):
        return True


def _machine() -> str:
    """What processes have in common that see each other's numbers; names of hosts repeat among containers."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{socket.gethostname()} {psutil.boot_time()}"


def _said(owner: Any) -> str:
    if not isinstance(owner, dict):
        return "another process"
    return f"process {owner.get('pid')} on {owner.get('host')} (since {owner.get('since')})"


def _parsed(data: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(data)
    except ValueError:
        return None
    return value if isinstance(value, dict) and "owner" in value else None
