"""The machine in words."""

from __future__ import annotations

import re

from streamcurate.runs.machine import this_machine


def test_names_processors_and_memory():
    assert re.fullmatch(r".+, \d+ processors?, \d+ GiB", this_machine())
