"""Our descriptors and the reference client's must agree; one process cannot hold both."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

DUMP = """
import importlib, json, sys

def fields(message):
    return {f.name: [f.number, f.type, f.is_repeated, f.message_type and f.message_type.full_name,
            f.enum_type and f.enum_type.full_name] for f in message.fields}

def walk(messages, out):
    for message in messages:
        out[message.full_name] = fields(message)
        walk(message.nested_types, out)

out = {"messages": {}, "enums": {}, "methods": {}}
for name in sys.argv[1:]:
    file = importlib.import_module(name).DESCRIPTOR
    walk(file.message_types_by_name.values(), out["messages"])
    for enum in file.enum_types_by_name.values():
        out["enums"][enum.full_name] = {v.name: v.number for v in enum.values}
    for service in file.services_by_name.values():
        for m in service.methods:
            out["methods"][f"{service.full_name}/{m.name}"] = [
                m.input_type.full_name, m.output_type.full_name, m.client_streaming, m.server_streaming]
print(json.dumps(out))
"""


def descriptors(*modules: str) -> dict[str, dict[str, Any]]:
    command = [sys.executable, "-c", DUMP, *modules]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    result: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return result


@pytest.fixture(scope="module")
def ours() -> dict[str, dict[str, Any]]:
    return descriptors("protos.model_config_pb2", "protos.grpc_service_pb2")


@pytest.fixture(scope="module")
def theirs() -> dict[str, dict[str, Any]]:
    return descriptors("tritonclient.grpc.model_config_pb2", "tritonclient.grpc.service_pb2")


def test_every_field_has_its_public_number_and_type(
    ours: dict[str, dict[str, Any]], theirs: dict[str, dict[str, Any]]
) -> None:
    for name, fields in ours["messages"].items():
        expected = theirs["messages"][name]
        assert {field: expected[field] for field in fields} == fields


def test_messages_of_requests_and_answers_are_complete(
    ours: dict[str, dict[str, Any]], theirs: dict[str, dict[str, Any]]
) -> None:
    configuration = {name for name in theirs["messages"] if name.startswith("inference.Model")}
    for name in theirs["messages"].keys() - configuration:
        if name in ours["messages"]:
            assert ours["messages"][name] == theirs["messages"][name]
    assert len(ours["messages"].keys() - configuration) > 40


def test_methods_and_enums_agree(ours: dict[str, dict[str, Any]], theirs: dict[str, dict[str, Any]]) -> None:
    assert ours["methods"] == theirs["methods"]
    for name, values in ours["enums"].items():
        assert theirs["enums"][name] == values
