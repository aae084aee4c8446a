"""Docstrings as the site shows them: roles become links, and what is handed on at import stands where it is used."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import griffe

import streamcurate

_CHOICES = re.compile(r"^( *[\w, ]+ : )\{(.+)\}", re.MULTILINE)
_ROLE = re.compile(r":(?:class|func|meth|attr|mod|data|exc):`(~?)([^`]+)`")


class PublicDocstrings(griffe.Extension):
    """Mends what reading the source alone cannot know."""

    def on_package(self, *, pkg: Any, **_: Any) -> None:
        """After the whole package was read."""
        if pkg.path != "streamcurate":
            return
        _hand_on(pkg)
        _replace_roles(pkg, set())


def _hand_on(package: Any) -> None:
    """Functions of the front door whose docstring and signature are another's (``__wrapped__``) get both."""
    for name in streamcurate.__all__:
        function = getattr(streamcurate, name)
        if not hasattr(function, "__wrapped__"):
            continue
        behind = inspect.unwrap(function)
        shown = package[function.__module__.removeprefix("streamcurate.")][name]
        # Read by itself: a package may hold a function and a module of one name, and then the module is found.
        path = Path(inspect.getsourcefile(behind) or "")
        source = griffe.visit(behind.__module__, path, path.read_text(encoding="utf-8"))[behind.__name__]
        shown.parameters, shown.returns = source.parameters, source.returns
        shown.docstring = griffe.Docstring(source.docstring.value, lineno=source.docstring.lineno, parent=shown)


def _replace_roles(thing: Any, seen: set[str]) -> None:
    if thing.is_alias or thing.path in seen:
        return
    seen.add(thing.path)
    if thing.docstring is not None:
        # Of choices in braces the reader of docstrings takes the first for the default, whatever the signature says.
        text = _CHOICES.sub(lambda found: found[1] + " or ".join(found[2].split(", ")), thing.docstring.value)
        thing.docstring.value = _ROLE.sub(_link, text)
    for member in getattr(thing, "members", {}).values():
        _replace_roles(member, seen)


def _link(found: re.Match[str]) -> str:
    target = found[2]
    name = target.rpartition(".")[2]
    if name in streamcurate.__all__ and (target == name or target.startswith("streamcurate.")):
        home = f"streamcurate.{name}"
        # A module may hold another thing of that name, such as the levels of a tree beside those of a configuration.
        if target in (name, home) or _same(target, name):
            return f"[`{name}`][{home}]"
    return f"`{name if found[1] else target}`"


def _same(path: str, name: str) -> bool:
    module, _, attribute = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute) is getattr(streamcurate, name)
    except (ImportError, AttributeError):
        return False
