"""Progress in a notebook: what the cell shows, and what stays."""

from __future__ import annotations

import html.parser
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_events import ANY_EVENT, MadeRun

from streamcurate.display.lines import Reading, State
from streamcurate.display.notebook import Notebook, in_notebook, page, plain_text, sparkline
from streamcurate.display.progress import Progress
from streamcurate.runs import PassAdvanced
from streamcurate.runs.progress import RunProgress


class Balanced(html.parser.HTMLParser):
    """Refuses tags that are not closed, and all that fetches or runs something."""

    def __init__(self):
        super().__init__()
        self.open, self.text = [], []

    def handle_starttag(self, tag, attributes):
        assert tag not in ("script", "link", "img", "iframe", "style")
        assert not [name for name, value in attributes if name.startswith("on") or "url(" in (value or "")]
        self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def text_of(markup):
    parser = Balanced()
    parser.feed(markup)
    parser.close()
    assert parser.open == []
    return " ".join(parser.text)


def state_of(events):
    state = State(lambda: 0.0)
    for event in events:
        state.heard(event)
    return state


def test_under_way():
    events = MadeRun().events
    found = [index for index, event in enumerate(events) if isinstance(event, PassAdvanced)]
    text = text_of(page(state_of(events[: found[7] + 1]), ["a note <b>"]))
    assert re.search(r"level 1 of 2 , 100,000 points in 1,000 clusters, \d+ s so far, about \d+ s left", text)
    assert "first fit, pass 8 of at most 50, inertia 7.423e+07 (-0.93 %), moved 0.47 %" in text
    assert "50 %, 62.5 k rows/s" in text
    assert "a note <b>" in text


def test_at_the_end_a_table_with_a_curve_for_each_level():
    markup = page(state_of(MadeRun().events))
    text = " ".join(text_of(markup).split())
    assert text == (
        "level points clusters passes inertia seconds inertia, pass by pass "
        "1 100,000 1,000 48 5e+07 38.2 Inertia of level 1, pass by pass "
        "2 1,000 100 16 5e+05 0.0 Inertia of level 2, pass by pass"
    )
    # The first fit and two resampling steps of level 1, and the one fit of level 2.
    assert markup.count("<polyline") == 4
    # Nothing says which colours the page has.
    assert not re.search(r"#[0-9a-f]{3,6}\b|rgb\(|white|black", markup)


def test_curves_fall_and_stay_inside():
    run = RunProgress.of(MadeRun().events)
    places = re.findall(r'points="([^"]+)"', sparkline(run.levels[1]))
    across = []
    for line in places:
        x, y = zip(*(map(float, place.split(",")) for place in line.split()), strict=True)
        assert list(y) == sorted(y)  # downwards
        assert 0 <= min(y) <= max(y) <= 22
        across += x
    assert across == sorted(across)
    assert 0 <= across[0] <= across[-1] <= 120


@given(st.lists(ANY_EVENT, max_size=30))
def test_any_run_is_a_page(events):
    state = state_of(events)
    text_of(page(state, ["<note>"]))
    state.reading = Reading("<a pass>", 0, 0.0)
    assert "<a pass>" in text_of(page(state))
    assert "<a pass>" in plain_text(state)


class Shown:
    """In place of IPython's ``display``."""

    def __init__(self):
        self.outputs = []

    def __call__(self, content, raw, display_id):
        assert raw
        assert display_id
        self.outputs.append([content])
        return self

    def update(self, content, raw):
        assert raw
        self.outputs[-1].append(content)


@pytest.fixture
def display(monkeypatch):
    import IPython.display

    shown = Shown()
    monkeypatch.setattr(IPython.display, "display", shown)
    monkeypatch.setattr("streamcurate.display.progress.in_notebook", lambda: True)
    return shown


def test_one_output_with_few_updates(display):
    now = [0.0]
    progress = Progress(clock=lambda: now[0])
    assert isinstance(progress._screen, Notebook)
    events = MadeRun().events
    for event in events:
        now[0] += 0.01
        progress.happened(event)
    progress.close()
    (output,) = display.outputs
    assert 2 <= len(output) <= 2 + len(events) * 0.01 / 0.25 + 2
    assert "level 2 of 2" not in output[-1]["text/html"]
    assert output[-1]["text/plain"].splitlines()[0].startswith("level 1: 100,000 points")
    # The next work has an output of its own.
    progress.note("said")
    assert [len(each) > 1 for each in display.outputs] == [True, False]


def test_a_pass_outside_a_run_is_gone_when_it_has_ended(display):
    now = [0.0]
    progress = Progress(clock=lambda: now[0])
    for _ in range(100):
        progress.started("copying", 10)
        progress.advanced(10, 10)
        progress.finished()
    assert len(display.outputs[0]) <= 3
    assert "copying" in display.outputs[0][0]["text/html"]
    assert "copying" not in display.outputs[0][-1]["text/html"]


def test_elsewhere_it_is_not_used(monkeypatch):
    assert not in_notebook()
    monkeypatch.setattr("streamcurate.display.progress.in_notebook", lambda: True)
    stream = io.StringIO()
    Progress(stream).note("to a stream that was asked for")
    assert stream.getvalue() == "to a stream that was asked for\n"


@pytest.mark.slow
def test_in_a_real_notebook():
    import nbclient
    import nbformat

    code = (
        "import numpy as np, streamcurate as sc\n"
        "x = np.random.default_rng(0).standard_normal((2000, 8)).astype('f4')\n"
        "tree = sc.cluster(x, levels='50,5', progress=sc.Progress())"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbclient.NotebookClient(notebook, timeout=120).execute()
    (output,) = notebook.cells[0].outputs
    assert "2,000" in text_of(output["data"]["text/html"])
