"""Write the generated modules anew: `python protos/generate.py [FOLDER]`, from anywhere.

With FOLDER they are written below it instead of beside their .proto files, for comparison.
Needs the development extra (grpcio-tools, mypy-protobuf).
"""

from __future__ import annotations

import sys
from pathlib import Path

PROTOS = Path(__file__).resolve().parent
FILES = ("protos/model_config.proto", "protos/grpc_service.proto", "protos/boulton.proto")


def generate(folder: Path) -> int:
    """Compile every .proto into `folder`/protos; returns the compiler's exit code."""
    from grpc_tools import protoc  # type: ignore[import-untyped]

    out = str(folder)
    plugin = Path(sys.executable).with_name("protoc-gen-mypy")
    arguments = ["protoc", f"--plugin={plugin}", f"-I{PROTOS.parent}"]
    outputs = [f"--python_out={out}", f"--grpc_python_out={out}", f"--mypy_out=quiet:{out}"]
    return int(protoc.main([*arguments, *outputs, *FILES]))


if __name__ == "__main__":
    sys.exit(generate(Path(sys.argv[1]) if len(sys.argv) > 1 else PROTOS.parent))
