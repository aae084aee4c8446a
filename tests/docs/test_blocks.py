"""Every block of the documentation parses, and those of the tutorial and the how-tos do what they say.

A page is read from top to bottom in one folder. A block with a title is a file of that name. ``$ `` begins a command;
what follows is its output, where ``...`` stands for anything, and is compared if it is there. A block of Python is run,
and a block ``text`` right behind it is what it prints. Comments right before a block say what is special about it:

- ``<!-- not run: WHY -->``: it is only parsed.
- ``<!-- exit: 2 -->``: the status its commands end with.
- ``<!-- needs: duckdb -->``: left out, with the rest of the page, where that package is not installed.

How-tos, and the pages on formats and migration, begin where the tutorial ended, in a copy of its folder.
"""

from __future__ import annotations

import ast
import contextlib
import glob
import importlib.util
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from streamcurate.cli.main import COMMANDS, main, streamcurate
from streamcurate.config import Config
from streamcurate.config.formats import _loader
from streamcurate.config.mixture import MixtureConfig

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
# Pages that go on in the folder of the tutorial.
HOW_TO = [*sorted((ROOT / "docs" / "howto").glob("*.md")), ROOT / "docs" / "formats.md", ROOT / "docs" / "migration.md"]
LANGUAGES = {"console", "python", "yaml", "text", "toml"}

_BLOCK = re.compile(
    r"(?P<comments>(?:^<!--[^\n]*-->\n+)*)^(?P<indent> *)```(?P<head>[^\n]*)\n(?P<body>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: str
    line: int
    language: str
    title: str | None
    body: str
    notes: dict[str, str]
    # Whether nothing but empty lines lies between it and the block before.
    follows: bool

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.page}:{self.line}"

    @property
    def runs(self) -> bool:
        """Whether it is to be run."""
        return "not run" not in self.notes


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found, end = [], 0
    for match in _BLOCK.finditer(text):
        language, _, rest = match["head"].partition(" ")
        title = re.search(r'title="([^"]+)"', rest)
        notes = dict(re.findall(r"<!-- ([\w ]+?)(?:: (.*?))? -->", match["comments"]))
        body = re.sub(rf"^{match['indent']}", "", match["body"], flags=re.MULTILINE)
        follows = bool(found) and not text[end : match.start()].strip()
        line = text.count("\n", 0, match.start("head")) + 1
        name = page.relative_to(ROOT).as_posix()
        found.append(Block(name, line, language, title and title[1], body, notes, follows))
        end = match.end()
    return found


def commands_of(block: Block) -> list[tuple[str, str]]:
    """Commands and the output that is told of each."""
    found: list[tuple[str, str]] = []
    for line in block.body.splitlines(keepends=True):
        if line.startswith("$ "):
            found.append((line[2:], ""))
        elif found and found[-1][0].endswith("\\\n"):
            found[-1] = (found[-1][0] + line, "")
        else:
            assert found, f"{block.where}: output before any command"
            found[-1] = (found[-1][0], found[-1][1] + line)
    return [(command.replace("\\\n", " ").strip(), output) for command, output in found]


def same(told: str, printed: str) -> bool:
    """Whether a text is what it is said to be; ``...`` stands for anything."""
    pattern = ".*".join(re.escape(part) for part in told.strip().split("..."))
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None


ALL = [block for page in [*PAGES, ROOT / "README.md"] for block in blocks_of(page)]


def test_there_are_blocks_of_known_languages():
    assert len(ALL) > 60
    strange = [f"{block.where}: {block.language!r}" for block in ALL if block.language not in LANGUAGES]
    assert not strange
    # What is not run says why.
    assert not [block.where for block in ALL if "not run" in block.notes and not block.notes["not run"]]


@pytest.mark.parametrize("block", [b for b in ALL if b.language == "python"], ids=lambda block: block.where)
def test_python_parses(block):
    ast.parse(block.body)


@pytest.mark.parametrize("block", [b for b in ALL if b.language == "yaml"], ids=lambda block: block.where)
def test_yaml_is_what_the_commands_take(block):
    import yaml

    value = yaml.load(block.body, _loader())
    if "parts" in value:
        assert MixtureConfig.from_mapping(value).parts
    elif "levels" in value or "n_clusters" in value:
        assert Config.from_mapping(value).levels
    else:
        assert isinstance(value, dict)


@pytest.mark.parametrize("block", [b for b in ALL if b.language == "console"], ids=lambda block: block.where)
def test_commands_and_their_options_are_there(block):
    """Of commands that are not run as well."""
    import click

    root = click.Context(streamcurate)
    for line, _ in commands_of(block):
        for part in re.split(r"&&|\|(?!\|)|;", line):
            words = shlex.split(part, comments=True)
            if words[:1] != ["streamcurate"] or len(words) == 1 or words[1].startswith("-") or words[1].isupper():
                continue
            assert words[1] in COMMANDS, f"{block.where}: {line}"
            command = streamcurate.get_command(root, words[1])
            assert command is not None
            known = {option for parameter in command.get_params(root) for option in parameter.opts} | {"-h", "--help"}
            used = {word.partition("=")[0] for word in words[2:] if re.match(r"--?[a-z]", word)}
            assert used <= known, f"{block.where}: {sorted(used - known)}"


class Reader:
    """Somebody who types what a page says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: dict[str, Any] = {"__name__": "__main__"}
        self.printed: str | None = None

    def read(self, page: Path) -> None:
        with contextlib.chdir(self.folder):
            for block in blocks_of(page):
                if (package := block.notes.get("needs")) and importlib.util.find_spec(package) is None:
                    pytest.skip(f"{block.where}: {package} is not installed")
                if block.runs:
                    self.take(block)

    def take(self, block: Block) -> None:
        if block.title is not None:
            Path(block.title).parent.mkdir(parents=True, exist_ok=True)
            Path(block.title).write_text(block.body, encoding="utf-8")
        elif block.language == "python":
            text = io.StringIO()
            code = compile(block.body, block.where, "exec")
            with contextlib.redirect_stdout(text):
                exec(code, self.names)
            self.printed = text.getvalue()
            return
        elif block.language == "console":
            for command, told in commands_of(block):
                status, printed = self.type(command)
                assert status == int(block.notes.get("exit", "0")), f"{block.where}: {command}\n{printed}"
                assert not told or same(told, printed), f"{block.where}: {command} prints\n{printed}"
        elif block.language == "text" and block.follows and self.printed is not None:
            assert same(block.body, self.printed), f"{block.where}: what is printed is\n{self.printed}"
        self.printed = None

    def type(self, command: str) -> tuple[int, str]:
        words = shlex.split(command, comments=True)
        if words[0] == "streamcurate" and not set(words) & {"&&", "|", ">", ";"}:
            # In this process: starting one and importing everything takes a second.
            typed = [
                name
                for word in words[1:]
                for name in (sorted(glob.glob(word)) if "*" in word and f"'{word}'" not in command else [word])
            ]
            text = io.StringIO()
            with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
                status = main(typed)
            return status, text.getvalue()
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-c", command], env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory) -> Path:
    """The folder in which the tutorial was worked through."""
    folder = tmp_path_factory.mktemp("tutorial")
    Reader(folder).read(ROOT / "docs" / "tutorial.md")
    return folder


def test_the_tutorial_does_what_it_says(tutorial):
    left = {path.name for path in tutorial.iterdir()}
    assert {"emb.zarr", "run", "levels.yaml", "curated.parquet", "report.html"} <= left


@pytest.mark.parametrize("page", HOW_TO, ids=lambda page: page.stem)
def test_a_how_to_does_what_it_says(page, tutorial, tmp_path):
    shutil.copytree(tutorial, tmp_path / "here")
    Reader(tmp_path / "here").read(page)


def test_most_blocks_of_the_how_tos_are_run():
    blocks = [block for page in HOW_TO for block in blocks_of(page) if block.language in ("console", "python")]
    assert sum(block.runs for block in blocks) > len(blocks) / 2


def test_what_is_told_is_compared():
    assert same("a ...\nb", "a 1 2\nb\n")
    assert not same("a ...\nb", "a 1\nc")
    assert not same("1.5", "1x5")
