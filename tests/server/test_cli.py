from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from child_process import child

from optimizer.devices.gpu import DeviceError
from server import cli
from server.errors import ConfigError

GREET = '''"""Greet somebody, 100% politely.

More text.
"""
import argparse

def add_arguments(parser):
    parser.add_argument("name")
    parser.add_argument("--times", type=int, default=1)

def run(arguments):
    print(f"hello {arguments.name}" * arguments.times)
    return 3
'''

Install = Callable[[str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Register modules made of the given source as the only subcommands."""
    commands: dict[str, str] = {}
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(cli, "find_commands", lambda: commands)

    def add(name: str, source: str) -> None:
        module = f"boulton_test_{name}_{tmp_path.name.replace('-', '_')}"
        (tmp_path / f"{module}.py").write_text(source)
        commands[name] = module

    return add


def raising(statement: str) -> str:
    return f'"""Fail."""\ndef add_arguments(parser): pass\ndef run(arguments):\n    {statement}\n'


def test_only_the_subcommand_that_is_asked_for_is_read(
    install: Install, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install("greet", GREET)
    install("other", GREET)
    read: list[str] = []
    first_line = cli._first_line
    monkeypatch.setattr(cli, "_first_line", lambda module: read.append(module) or first_line(module))
    assert cli.main(["greet", "Ada"]) == 3
    assert len(read) == 1
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert {"greet", "other"} <= set(capsys.readouterr().out.split())


def test_a_subcommand_gets_its_arguments_and_gives_the_exit_code(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("greet", GREET)
    assert cli.main(["greet", "Ada", "--times", "2"]) == 3
    assert capsys.readouterr().out == "hello Adahello Ada\n"


def test_help_shows_the_first_line_of_every_subcommand_without_importing_it(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("greet", GREET)
    install("broken", '"""Never imported."""\nraise RuntimeError\n')
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert "Greet somebody, 100% politely." in shown
    assert "Never imported." in shown


def test_a_module_that_cannot_be_found_does_not_spoil_the_help(
    install: Install, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "find_commands", lambda: {"ghost": "no_such_package.ghost"})
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert "ghost" in capsys.readouterr().out


@pytest.mark.parametrize("error", [ConfigError("--port is wrong"), DeviceError("no such clock")])
def test_known_errors_are_one_line_and_exit_code_2(
    install: Install, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    kind = type(error)
    install("fail", raising(f"from {kind.__module__} import {kind.__name__} as E; raise E({str(error)!r})"))
    assert cli.main(["fail"]) == 2
    assert capsys.readouterr().err == f"boulton: {error}\n"


def test_unknown_errors_keep_their_traceback(install: Install) -> None:
    install("fail", raising("raise ZeroDivisionError('a bug')"))
    with pytest.raises(ZeroDivisionError):
        cli.main(["fail"])


def test_an_interrupt_exits_130(install: Install) -> None:
    install("fail", raising("raise KeyboardInterrupt"))
    assert cli.main(["fail"]) == 130


@pytest.mark.parametrize(("module", "extra"), [("onnxruntime", "cpu"), ("torch.nn", "torch")])
def test_a_missing_extra_is_named(
    install: Install,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    module: str,
    extra: str,
) -> None:
    monkeypatch.setitem(sys.modules, module.partition(".")[0], None)
    install("needy", f'"""Need."""\nimport {module}\n')
    assert cli.main(["needy"]) == 2
    assert f"pip install 'boulton[{extra}]'" in capsys.readouterr().err


def test_a_module_of_our_own_that_is_missing_is_a_bug(install: Install) -> None:
    install("broken", '"""Broken."""\nimport server.no_such_module\n')
    with pytest.raises(ModuleNotFoundError):
        cli.main(["broken"])


def test_an_unknown_subcommand_is_refused(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("greet", GREET)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["frobnicate"])
    assert stopped.value.code == 2
    assert "greet" in capsys.readouterr().err


def test_the_installed_help_imports_no_heavy_module() -> None:
    script = (
        "import json, sys\nfrom server.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    loaded = set(json.loads(finished.stderr.splitlines()[-1]))
    assert not loaded & {"grpc", "numpy", "onnx", "onnxruntime", "torch", "google.protobuf", "PIL"}
    assert "serve" in finished.stdout


def test_every_command_declares_its_flags_without_any_extra() -> None:
    script = (
        "import argparse, importlib, sys\nfrom server.cli import EXTRAS, find_commands\n"
        "sys.modules.update(dict.fromkeys(EXTRAS))\n"  # none of them can be imported
        "for module in find_commands().values():\n"
        "    importlib.import_module(module).add_arguments(argparse.ArgumentParser())\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env=dict(os.environ))


@pytest.mark.parametrize("module", ["server.engines.onnxruntime", "bench.layers.sessions"])
def test_onnx_runtime_is_kept_from_reporting_its_use(module: str, tmp_path: Path) -> None:
    unset = {"XDG_CACHE_HOME", "ORT_DISABLE_TELEMETRY"}
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    program = f"import {module}, onnxruntime"
    subprocess.run(
        [sys.executable, "-c", program], check=True, env={**environment, "HOME": str(tmp_path)}, timeout=60
    )
    assert list(tmp_path.iterdir()) == []


ENDLESS = '''"""Talk for ever."""

def add_arguments(parser):
    pass

def run(arguments):
    while True:
        print("x" * 99)
'''


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "endless.py").write_text(ENDLESS)
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from server import cli\n"
        "cli.find_commands = lambda: {'talk': 'endless'}\nsys.exit(cli.main(['talk']))"
    )
    words = [sys.executable, "-c", script]
    with child(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 141


TALK = '''"""Talk."""

def add_arguments(parser):
    pass

def run(arguments):
    print("x" * 99)
    return 0
'''


def talk(directory: Path, redirection: str, *words: str, unbuffered: str = "") -> tuple[int, str]:
    """Run a command that prints a line, with its streams redirected by a shell; its exit code and stderr."""
    (directory / "talk.py").write_text(TALK)
    script = (
        f"import sys; sys.path.insert(0, {str(directory)!r}); from server import cli\n"
        "cli.find_commands = lambda: {'talk': 'talk'}\nsys.exit(cli.main(sys.argv[1:]))"
    )
    line = shlex.join([sys.executable, "-c", script, *(words or ["talk"])])
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(
        ["sh", "-c", f"exec {line} {redirection}"],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_cannot_be_written_is_told_in_a_line(tmp_path: Path, unbuffered: str) -> None:
    code, said = talk(tmp_path, ">/dev/full", unbuffered=unbuffered)
    assert (code, said) == (2, "boulton: the output could not be written: No space left on device\n")


def test_help_that_cannot_be_written_is_an_error_too(tmp_path: Path) -> None:
    assert talk(tmp_path, ">/dev/full", "talk", "--help")[0] == 2


BREAK = '''"""Break."""

def add_arguments(parser):
    parser.add_argument("file")

def run(arguments):
    return open(arguments.file).close()
'''


def test_a_file_that_cannot_be_had_is_told_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "breaking.py").write_text(BREAK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(cli, "find_commands", lambda: {"break": "breaking"})
    assert cli.main(["break", "/nowhere/file"]) == 2
    assert capsys.readouterr().err == "boulton: /nowhere/file: No such file or directory\n"


ECHO = '''"""Echo."""

def add_arguments(parser):
    parser.add_argument("word")
    parser.add_argument("--send", action="store_true")

def run(arguments):
    print(arguments.word.encode() if arguments.send else arguments.word)
    return 0
'''


@pytest.mark.parametrize(
    ("words", "code", "printed", "said"),
    [
        (["n\udcff"], 0, b"n\\udcff\n", b""),
        (["n\udcff", "--send"], 2, b"", b"boulton: 'n\\udcff' is not UTF-8 text\n"),
    ],
)
def test_words_may_be_any_bytes(
    tmp_path: Path, words: list[str], code: int, printed: bytes, said: bytes
) -> None:
    (tmp_path / "echoing.py").write_text(ECHO)
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from server import cli\n"
        "cli.find_commands = lambda: {'echo': 'echoing'}\nsys.exit(cli.main(sys.argv[1:]))"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    command = [sys.executable, "-c", script, "echo", *words]
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, printed, said)


STREAMS = '''"""Look at the standard streams."""
import os, sys

def add_arguments(parser):
    parser.add_argument("--into")

def run(arguments):
    with open(arguments.into, "w") as file:
        print(file.fileno() > 2, all(map(os.get_inheritable, range(3))), file=file)
    print(sys.stdin.read())
    print(file=sys.stderr)
    return 0
'''


def test_streams_that_were_closed_go_nowhere(tmp_path: Path) -> None:
    (tmp_path / "streams.py").write_text(STREAMS)
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from server import cli\n"
        "cli.find_commands = lambda: {'look': 'streams'}\nsys.exit(cli.main(sys.argv[1:]))"
    )
    line = shlex.join([sys.executable, "-c", script, "look", "--into", str(tmp_path / "seen")])
    subprocess.run(["sh", "-c", f"exec {line} <&- >&- 2>&-"], check=True)
    assert (tmp_path / "seen").read_text() == "True True\n"


def test_the_version_is_the_distribution_s(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out.startswith("boulton ")
