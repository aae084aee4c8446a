"""Pages that are made from what lies elsewhere: the commands, parts of README.md, and documents of the repository.

What is written down once stays in its one place: a page says ``<!-- readme: Limits -->`` and gets that section of
README.md. A section, a document or a link that is no longer there ends the build.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

import click
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

from streamcurate.cli.main import COMMANDS, streamcurate

REPOSITORY = Path(__file__).parents[2]

# Documents of the repository that are pages of the site as they are, and under which name.
DOCUMENTS = {
    "peers.md": "benchmarks/results/peers.md",
    "tried.md": "benchmarks/TRIED.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
COMMANDS_PAGE = "reference/commands.md"

_README = re.compile(r"^<!-- readme: (.+?) -->$", re.MULTILINE)
_NOTEBOOKS = "<!-- notebooks -->"
_LINK = re.compile(r"(!?)\[([^\]\n]*)\]\(([^)\s]+)\)")
_ABSOLUTE = re.compile(r"[a-z]+:|#|//")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made."""
    for page, document in DOCUMENTS.items():
        text = (REPOSITORY / document).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=relinked(text, posixpath.dirname(document), page)))
    files.append(File.generated(config, COMMANDS_PAGE, content=commands_page()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Put sections of README.md, and the list of notebooks, where a page asks for them."""
    markdown = markdown.replace(_NOTEBOOKS, notebooks())
    return _README.sub(lambda found: relinked(readme_section(found[1]), "", page.file.src_uri), markdown)


def readme_section(title: str) -> str:
    """What stands under a heading of README.md, up to the next of the same rank."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,2}} |\Z)", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise PluginError(f"README.md has no section {title!r} any more; name another in the page that includes it")
    return found[2].strip()


def notebooks() -> str:
    """The notebooks of the repository with their titles; they are text, and nothing where there are none."""
    lines = []
    for path in sorted((REPOSITORY / "notebooks").glob("*.md")):
        title = re.search(r"^# (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        if title is not None and path.stem != "README":
            lines.append(f"- `notebooks/{path.name}`: {title[1]}")
    return "\n".join(["## Notebooks", "", "In the repository:", "", *lines]) if lines else ""


def relinked(text: str, folder: str, page: str) -> str:
    """Links of a document of the repository as a page of the site has them.

    Parameters
    ----------
    text : str
    folder : str
        Where the document lies in the repository.
    page : str
        The page it becomes a part of.
    """
    pages = {document: name for name, document in DOCUMENTS.items()}

    def link(found: re.Match[str]) -> str:
        mark, label, target = found.groups()
        if _ABSOLUTE.match(target):
            return found[0]
        path, _, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(folder, path))
        if not (REPOSITORY / path).exists():
            raise PluginError(f"{page}: links to {path}, which is not in the repository")
        if path in pages or path.startswith("docs/"):
            place = pages.get(path) or path.removeprefix("docs/")
            relative = posixpath.relpath(place, posixpath.dirname(page) or ".")
            return f"{mark}[{label}]({relative}{'#' + anchor if anchor else ''})"
        # What only the repository has is named, not linked.
        return label if label.strip("`") == path else f"{label} (`{path}`)"

    return _LINK.sub(link, text)


def commands_page() -> str:
    """The reference of all commands, from what the commands say of themselves."""
    parts = [
        "# Commands\n",
        "Made from the commands themselves: what `streamcurate COMMAND --help` says. Exit status: 0 done; 2 something "
        "that you can mend, said in one message; 130 and 143 stopped by Ctrl-C and by SIGTERM, and the message says "
        "how to resume; 1 anything else.\n",
    ]
    root = click.Context(streamcurate, info_name="streamcurate")
    for name in COMMANDS:
        command = streamcurate.get_command(root, name)
        if command is None:
            raise PluginError(f"the command {name} is listed and not there")
        parts.append(_command(name, command, root))
    return "\n".join(parts)


def _command(name: str, command: click.Command, root: click.Context) -> str:
    context = click.Context(command, info_name=name, parent=root)
    usage = " ".join(["streamcurate", name, *command.collect_usage_pieces(context)])
    lines = [f"## {name} {{ #{name} }}\n", f"```text\n{usage}\n```\n"]
    for paragraph in (command.help or "").split("\n\n"):
        lines.append(f"{_plain(' '.join(paragraph.split()))}\n")
    for parameter in command.get_params(context):
        # Arguments stand in the first line and in the text; that --help helps is said once, above all commands.
        if not isinstance(parameter, click.Option) or parameter.name == "help":
            continue
        if (record := parameter.get_help_record(context)) is not None:
            lines.append(f"`{record[0]}`\n:   {_plain(record[1])}\n")
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Text in which nothing is Markdown."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", text)
