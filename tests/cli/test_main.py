"""What the user sees and what the exit status says, with made-up commands in place of the real ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import click
import pytest

from streamcurate.cli.main import COMMANDS, LazyGroup, main, run, streamcurate
from streamcurate.version import __version__

COMMAND = """
import click

from streamcurate.cli.signals import set_resume_hint
from streamcurate.errors import DataError, DiskFullError, StreamcurateError

@click.command()
@click.option("--rows", type=int)
@click.option("--clean-up", is_flag=True)
@click.argument("what")
def command(what, rows, clean_up):
    "Do what is asked."
    if what == "input":
        raise DataError("emb.zarr: 3 rows hold NaN (first: row 8); drop them with --on-bad-row drop")
    if what == "full":
        raise DiskFullError("emb.zarr: no space left")
    if what == "raw-full":
        raise OSError(28, "No space left on device", "x.npy")
    if what == "file-end":
        raise EOFError
    if what == "bug":
        raise ZeroDivisionError("of rows")
    if what == "own-bug":
        raise StreamcurateError("not the user's")
    if what == "file":
        raise click.FileError("rows.npy", "is a folder")
    if what == "number":
        return 7
    if what == "lines":
        for number in range(100_000):
            click.echo(f"line {number}")
    if what == "wait":
        import time
        set_resume_hint("finished parts are in run/; give the same command again")
        try:
            print("ready", flush=True)
            time.sleep(60)
        except Exception:
            print("swallowed")
        finally:
            if clean_up:
                print("cleaning", flush=True)
                time.sleep(0.3)
                print("cleaned", flush=True)
    if what == "ask":
        click.confirm("Sure?", abort=True)
"""

PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from streamcurate.cli.main import LazyGroup, run
group = LazyGroup(name="streamcurate", modules={"work": "Work."}, package="made_up_commands")
sys.exit(run(group, sys.argv[2:]))
"""


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "made_up_commands"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "work.py").write_text(COMMAND)
    (folder / "broken.py").write_text("import absent_library")
    return tmp_path


@pytest.fixture
def group(package, monkeypatch):
    monkeypatch.syspath_prepend(package)
    for name in list(sys.modules):
        if name.startswith("made_up_commands"):
            monkeypatch.delitem(sys.modules, name)
    modules = {"work": "Work.", "broken": "Cannot even be imported."}
    return LazyGroup(name="streamcurate", modules=modules, package="made_up_commands")


@pytest.fixture
def program(package):
    def start(*arguments, **options):
        command = [sys.executable, "-c", PROGRAM, str(package), *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)

    return start


class TestStatus:
    def test_done(self, group, capsys):
        assert run(group, ["work", "nothing"]) == 0
        assert capsys.readouterr() == ("", "")

    def test_what_a_command_returns_is_no_status(self, group):
        assert run(group, ["work", "number"]) == 0

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["work", "input"], "emb.zarr: 3 rows hold NaN (first: row 8); drop them with --on-bad-row drop"),
            (["work", "full"], "emb.zarr: no space left"),
            (
                ["work", "raw-full"],
                "x.npy: no space left on the device; free some space, then give the same command again",
            ),
            (["work", "file"], "Could not open file 'rows.npy': is a folder"),
        ],
    )
    def test_what_the_user_can_mend(self, group, capsys, arguments, message):
        assert run(group, arguments) == 2
        assert capsys.readouterr() == ("", f"streamcurate: error: {message}\n")

    @pytest.mark.parametrize(
        ("arguments", "parts"),
        [
            (["work"], ["Missing argument 'WHAT'", "See 'streamcurate work --help'"]),
            (["work", "x", "--row", "3"], ["No such option", "--rows"]),
            (["work", "x", "--rows", "many"], ["--rows", "'many'"]),
            (["wrok"], ["No such command 'wrok'", "did you mean 'work'?", "See 'streamcurate --help'"]),
            (["zzz"], ["No such command 'zzz'", "See 'streamcurate --help'"]),
            (["--zzz"], ["No such option", "--zzz"]),
        ],
    )
    def test_wrong_usage(self, group, capsys, arguments, parts):
        assert run(group, arguments) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("streamcurate: error: ")
        assert err.count("\n") == 1
        assert [part for part in parts if part not in err] == [], err

    @pytest.mark.parametrize(
        ("what", "name"), [("bug", "ZeroDivisionError"), ("own-bug", "StreamcurateError"), ("file-end", "EOFError")]
    )
    def test_anything_else_shows_where_it_happened(self, group, capsys, what, name):
        assert run(group, ["work", what]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert "Traceback" in err
        assert "work.py" in err
        assert name in err

    def test_command_that_cannot_be_imported_is_a_bug(self, group, capsys):
        assert run(group, ["broken"]) == 1
        assert "absent_library" in capsys.readouterr().err

    def test_no_command(self, group, capsys):
        assert run(group, []) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert "Cannot even be imported." in err

    def test_refusal_at_a_question(self, program):
        with program("work", "ask", stdin=subprocess.DEVNULL) as process:
            _, err = process.communicate()
        assert process.returncode == 130
        assert "Traceback" not in err


class TestHelp:
    @pytest.mark.parametrize("option", ["--help", "-h"])
    def test_names_every_command_without_importing_it(self, capsys, option):
        assert main([option]) == 0
        out = capsys.readouterr().out
        for name, summary in COMMANDS.items():
            assert f"  {name} " in out
            assert summary in out

    def test_help_works_beside_a_broken_command(self, group, capsys):
        assert run(group, ["--help"]) == 0
        assert "Cannot even be imported." in capsys.readouterr().out

    def test_version(self, capsys):
        assert main(["--version"]) == 0
        assert capsys.readouterr().out == f"streamcurate {__version__}\n"

    def test_commands_of_the_contract(self):
        context = click.Context(streamcurate)
        assert streamcurate.list_commands(context) == [
            "ingest",
            "inspect",
            "plan",
            "cluster",
            "watch",
            "sample",
            "explain",
            "dedup",
            "retrieve",
            "exclude",
            "rows",
            "mix",
            "report",
            "assign",
            "extend",
            "demo",
        ]

    def test_start_is_light(self):
        code = (
            "import sys, streamcurate.cli.main as m; m.main(['--help']);"
            "heavy = {'numpy', 'numba', 'zarr', 'pyarrow', 'matplotlib', 'rich', 'yaml', 'dask'};"
            "print(sorted(heavy & set(sys.modules)))"
        )
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert result.stdout.splitlines()[-1] == "[]"


class TestSignals:
    @pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_stop_says_how_to_go_on(self, program, number, status):
        with program("work", "wait") as process:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(number)
            out, err = process.communicate()
        assert process.returncode == status
        assert err.strip() == "streamcurate: stopped; finished parts are in run/; give the same command again"
        assert out == ""

    def test_reads_that_are_dropped_are_not_told(self):
        """Zarr reads in an event loop of its own: asyncio would tell of each task that the process leaves behind."""
        code = """
import asyncio, gc, sys, threading, time, click
from streamcurate.cli.main import run

async def never():
    await asyncio.sleep(3600)

@click.group()
def group(): pass

@group.command()
def work():
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    future = asyncio.run_coroutine_threadsafe(never(), loop)
    while not asyncio.all_tasks(loop):
        time.sleep(0.01)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    raise KeyboardInterrupt

status = run(group, ["work"])
gc.collect()
sys.exit(status)
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert (done.returncode, done.stderr.strip()) == (130, "streamcurate: stopped")

    def test_further_sigterms_do_not_disturb_the_end(self, program):
        with program("work", "wait", "--clean-up") as process:
            assert process.stdout.readline() == "ready\n"
            process.terminate()
            assert process.stdout.readline() == "cleaning\n"
            process.terminate()
            out, _ = process.communicate()
        assert process.returncode == 143
        assert out == "cleaned\n"

    def test_handler_of_the_process_is_put_back(self, group):
        before = signal.getsignal(signal.SIGTERM)
        run(group, ["work", "nothing"])
        assert signal.getsignal(signal.SIGTERM) is before


class TestOutput:
    def test_reader_that_goes_away_is_no_error(self, program):
        with program("work", "lines") as process:
            assert process.stdout.readline() == "line 0\n"
            process.stdout.close()
            err = process.stderr.read()
        assert process.returncode == 1
        assert err == ""

    def test_reader_that_is_gone_before_the_first_line(self, program):
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "wb") as out:
            command = [sys.executable, "-m", "streamcurate.cli.main", "--help"]
            result = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, check=False)
        assert result.returncode == 1
        assert result.stderr == b""

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
    def test_full_disk_behind_standard_output(self):
        with open("/dev/full", "wb") as full:
            command = [sys.executable, "-m", "streamcurate.cli.main", "--version"]
            result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert result.returncode == 2
        assert "no space left" in result.stderr
        assert "Traceback" not in result.stderr
