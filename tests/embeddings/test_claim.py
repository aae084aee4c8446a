"""The claim on a place in an object store: one writer, and whoever lost it is told."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from streamcurate import objects
from streamcurate.embeddings import claim as module
from streamcurate.embeddings.claim import Claim
from streamcurate.errors import InputError, RunError

pytest_plugins = ["object_store"]


@pytest.fixture
def url(object_store) -> str:
    return object_store.url("e.zarr.partial/state.json")


def said(url: str) -> dict[str, object]:
    return json.loads(objects.read(url))


def elsewhere(url: str, **changes: object) -> None:
    """Sign a claim as another process would."""
    value = said(url)
    owner = {"token": "t", "machine": "m", "host": "far", "pid": 1, "started": 0, "since": "then"} | changes
    objects.write(url, json.dumps(value | {"owner": owner, "word": ["t", 1]}).encode())


def test_taken_said_and_given_back(url):
    claim = Claim(url, "place")
    assert claim.take() is None
    claim.say({"a": 1})
    claim.release({"a": 2})
    assert said(url)["a"] == 2
    again = Claim(url, "place")
    value = again.take()
    assert value is not None
    assert value["a"] == 2
    again.release(None)
    assert objects.status(url) is None


def test_a_second_writer_is_told(object_store, url):
    claim = Claim(url, "place")
    claim.take()
    object_store.reset()
    claim.require({})
    assert [method for method, *_ in object_store.requests] == ["HEAD"]
    with pytest.raises(RunError, match=r"place: is being written by process \d+ on .* wait for it to end"):
        Claim(url, "place").take()
    claim.say({})  # and the first has lost nothing
    claim.release(None)


def test_a_process_that_died_here_is_replaced_at_once(url):
    lines = f"from streamcurate.embeddings.claim import Claim; Claim({url!r}, 'x').take()"
    subprocess.run([sys.executable, "-c", lines], check=True, timeout=60)
    assert said(url)["owner"] is not None
    claim = Claim(url, "place")
    assert claim.take() is not None
    claim.release(None)


def test_of_a_living_process_and_of_another_with_its_number(url):
    lines = f"from streamcurate.embeddings.claim import Claim; Claim({url!r}, 'x').take(); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", lines], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(RunError, match=f"process {process.pid} on"):
            Claim(url, "place").take()
        value = said(url)
        assert isinstance(value["owner"], dict)
        value["owner"]["started"] -= 1000
        objects.write(url, json.dumps(value).encode())
        Claim(url, "place").take()
        process.kill()


def test_of_another_machine(url, monkeypatch):
    Claim(url, "place").take()
    elsewhere(url)
    told = r"process 1 on far \(since then\), last heard of \d+ seconds ago.*takes over 15"
    with pytest.raises(RunError, match=told):
        Claim(url, "place").take()
    # By the clock of the store, which counts in seconds.
    monkeypatch.setattr(module, "SILENCE_SECONDS", 1)
    time.sleep(1.1)
    claim = Claim(url, "place")
    assert claim.take() is not None
    claim.release(None)


def test_words_come_now_and_then(url, monkeypatch):
    claim = Claim(url, "place")
    assert not claim.silent
    claim.take()
    assert not claim.silent
    monkeypatch.setattr(module, "WORD_SECONDS", -1)
    assert claim.silent
    claim.release(None)
    assert not claim.silent


def test_who_lost_it_is_told_and_does_no_harm(url):
    zombie = Claim(url, "place")
    zombie.take()
    elsewhere(url)
    before = objects.read(url)
    for word in (zombie.require, zombie.say):
        with pytest.raises(RunError, match=r"place: process 1 on far \(since then\) has taken it over"):
            word({"mine": 1})
        assert objects.read(url) == before
    assert not zombie.held
    zombie.release(None)
    assert objects.read(url) == before


@pytest.mark.parametrize("kind", ["late error", "lost", "reset"])
def test_answers_that_are_lost(object_store, url, kind):
    claim = Claim(url, "place")
    claim.take()
    left = [1]
    object_store.faults(when=lambda method, path: kind if method == "PUT" and left and left.pop() else None)
    claim.say({"a": 1})
    assert not left
    claim.say({"a": 2})
    claim.release({"a": 3})
    assert said(url)["a"] == 3


def test_a_word_that_arrived_although_it_failed(object_store, url, monkeypatch):
    claim = Claim(url, "place")
    claim.take()
    replace = objects.replace

    def arrives_and_fails(*given):
        replace(*given)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(objects, "replace", arrives_and_fails)
        with pytest.raises(KeyboardInterrupt):
            claim.say({"a": 1})
    claim.release({"a": 2})
    assert said(url) == {"a": 2, "owner": None, "word": [said(url)["word"][0], 3]}


def test_something_else_lies_there(url):
    for data in (b"thesis", b"[1]", b'{"a": 1}'):
        objects.write(url, data)
        with pytest.raises(InputError, match="in the way, and no claim"):
            Claim(url, "place").take()
        assert objects.read(url) == data
