"""What the checkout promises about itself."""

from __future__ import annotations

import ast
import re
import tomllib
from importlib.metadata import entry_points
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TESTED_EXTRAS = ("cpu", "torch", "photos", "tournament", "study")


def _named_requirements() -> list[Requirement]:
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = chain(
        PROJECT["project"]["dependencies"],
        *(extras[name] for name in TESTED_EXTRAS),
        PROJECT["dependency-groups"]["dev"],
    )
    return [Requirement(line) for line in wanted]


def _constraints() -> dict[str, Requirement]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


@pytest.mark.parametrize("wanted", _named_requirements(), ids=lambda wanted: wanted.name)
def test_what_is_tested_satisfies_what_is_declared(wanted: Requirement) -> None:
    (pin,) = _constraints()[canonicalize_name(wanted.name)].specifier
    assert pin.operator == "=="
    assert wanted.specifier.contains(pin.version)


@pytest.mark.parametrize(
    ("package", "pattern"),
    [("protobuf", r"Protobuf Python Version: (\S+)"), ("grpcio", r"GRPC_GENERATED_VERSION = '(\S+)'")],
)
def test_declared_minimum_suits_the_generated_modules(package: str, pattern: str) -> None:
    (declared,) = (wanted for wanted in _named_requirements() if wanted.name == package)
    (minimum,) = declared.specifier
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "protos").glob("*_pb2*.py")]
    made_with = {Version(found) for text in texts for found in re.findall(pattern, text)}
    assert made_with
    assert minimum.operator == ">="
    assert max(made_with) <= Version(minimum.version)


def test_constraints_carry_no_local_version() -> None:
    assert [str(pin) for pin in _constraints().values() if "+" in str(pin.specifier)] == []


def test_the_runtimes_that_install_the_same_module_are_apart() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    names = {extra: {Requirement(line).name for line in lines} for extra, lines in extras.items()}
    assert [extra for extra, found in names.items() if {"onnxruntime", "onnxruntime-gpu"} <= found] == []


@pytest.mark.parametrize("name", PROJECT["project"]["entry-points"]["boulton.commands"])
def test_every_registered_command_exists_and_says_what_it_does(name: str) -> None:
    (entry,) = entry_points(group="boulton.commands", name=name)
    spec = find_spec(entry.value)
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    assert (ast.get_docstring(tree) or "").partition("\n")[0]
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    imported = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert {"add_arguments", "run"} <= defined | imported


@pytest.mark.parametrize("package", ["server", "optimizer", "bench", "protos"])
def test_every_package_is_typed_and_speaks_for_itself(package: str) -> None:
    assert (ROOT / package / "py.typed").exists()
    silent = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / package).rglob("*.py")
        if not path.stem.endswith(("_pb2", "_pb2_grpc"))
        and ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) is None
    ]
    assert silent == []
