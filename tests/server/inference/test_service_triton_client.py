"""NVIDIA's client library in a process of its own against the real server."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tiny_server import Served

CLIENT = Path(__file__).parents[2] / "services" / "triton_client.py"


async def test_every_part_passes(served: Served) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        CLIENT,
        served.address,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(120):
            printed, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    text = printed.decode()
    assert process.returncode == 0, text
    assert text.count(": passed") == 12, text
