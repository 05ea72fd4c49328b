"""Try the TensorRT engine on a real GPU: answers against ONNX Runtime's, times, overlap, a second start.

    python -m bench.gpu.try_tensorrt MODEL.onnx [--toolkit tensorrt-rtx] [--batches 1,8,32] [--json OUT]

Prints one line a check and a table in the end, and ends with 1 when a check failed; what fails keeps none of
the others from being tried. Sets no clock and no other state of the GPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from rich.markup import escape
from rich.table import Table

from bench.console import make_console
from server.engines.engine import Array, Engine, TensorSpec
from server.engines.onnxruntime import load_onnxruntime_engine
from server.engines.padding import padded
from server.engines.tensorrt.engine import TensorRtEngine
from server.engines.tensorrt.loading import load_tensorrt_engine
from server.engines.tensorrt.plans import IfMissing
from server.engines.tensorrt.toolkit import TENSORRT, TENSORRT_RTX
from server.errors import CudaLost, EngineError

ROUNDS = 200
LARGEST_DIFFERENCE = 2e-2
"""Relative to the largest answer: TF32 rounds to 10 bits, and FP16 files are rounded by themselves."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was tried."""

    name: str
    ok: bool
    detail: str


def main(argv: Sequence[str] | None = None) -> int:
    """Try everything; return 1 when anything failed."""
    arguments = _arguments(argv)
    findings: list[Finding] = []
    for finding in _findings(arguments):
        print(f"{'ok    ' if finding.ok else 'FAILED'}  {finding.name}: {finding.detail}", flush=True)
        findings.append(finding)
        if arguments.json is not None:  # each time: the machine may be taken away before the end
            _write(arguments.json, findings)
    make_console().print(_table(findings))
    return int(not all(finding.ok for finding in findings))


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Try the TensorRT engine on a real GPU.")
    parser.add_argument("model", type=Path, metavar="MODEL.onnx")
    parser.add_argument("--toolkit", choices=(TENSORRT, TENSORRT_RTX), default=TENSORRT)
    parser.add_argument("--batches", default="1,8,32")
    parser.add_argument("--device", type=int, default=0)
    parser.add_argument("--json", type=Path)
    return parser.parse_args(argv)


def _write(path: Path, findings: Sequence[Finding]) -> None:
    aside = path.with_suffix(".partial")
    aside.write_text(json.dumps([asdict(finding) for finding in findings], indent=1) + "\n", encoding="utf-8")
    aside.replace(path)


def _table(findings: Sequence[Finding]) -> Table:
    table = Table(title="What was tried")
    for heading in ("", "what", "found"):
        table.add_column(heading)
    for finding in findings:
        table.add_row(*map(escape, ("ok" if finding.ok else "FAILED", finding.name, finding.detail)))
    return table


def _findings(arguments: argparse.Namespace) -> Iterator[Finding]:
    batches = tuple(int(part) for part in arguments.batches.split(","))
    with tempfile.TemporaryDirectory() as kept:

        def load(if_missing: IfMissing) -> TensorRtEngine:
            return load_tensorrt_engine(
                arguments.model,
                toolkit=arguments.toolkit,
                served_batches=batches,
                device_index=arguments.device,
                cache_dir=Path(kept),
                if_missing=if_missing,
            )

        for name, if_missing in (("first start", IfMissing.BUILD), ("second start", IfMissing.REFUSE)):
            begin_s = time.perf_counter()
            try:
                engine = load(if_missing)
            except Exception as error:  # frameworks raise whatever they like
                yield _failed(name, error)
                return
            yield Finding(name, ok=True, detail=f"{time.perf_counter() - begin_s:.2f} s")
            try:
                yield from _with_engine(engine, arguments.model, first=if_missing is IfMissing.BUILD)
            except CudaLost as error:
                yield _failed("the GPU", error)
                return
            finally:
                engine.close()


def _failed(name: str, error: Exception) -> Finding:
    return Finding(name, ok=False, detail=f"{type(error).__name__}: {' '.join(str(error).split())}")


def _each(tries: Iterable[tuple[str, Callable[[], Finding]]]) -> Iterator[Finding]:
    """Try one after the other, whatever becomes of those before. Raises `CudaLost`: nothing can follow."""
    for name, attempt in tries:
        try:
            yield attempt()
        except CudaLost:
            raise
        except Exception as error:
            yield _failed(name, error)


def _with_engine(engine: TensorRtEngine, model: Path, *, first: bool) -> Iterator[Finding]:
    yield from _each(_answers(engine, model))
    if first:
        for batch in engine.served_batches:
            yield from _each(
                (
                    (f"one by one at batch {batch}", partial(_times, engine, batch)),
                    (f"overlapping at batch {batch}", partial(_overlap, engine, batch)),
                )
            )


def _answers(engine: TensorRtEngine, model: Path) -> Iterator[tuple[str, Callable[[], Finding]]]:
    """Every served size, and one between two that is padded, twice each with other images."""
    filled = padded(engine)
    sizes = sorted({*engine.served_batches, max(1, engine.max_batch - 1)})
    for images in sizes:
        for seed in (1, 2):
            name = f"answers at batch {images}"
            yield name, partial(_answer, name, filled, model, images, seed)


def _answer(name: str, filled: Engine, model: Path, images: int, seed: int) -> Finding:
    inputs = tuple(_random(spec, images, seed) for spec in filled.inputs)
    got = filled.run(inputs)
    reference = load_onnxruntime_engine(model, max_batch=filled.max_batch)
    try:
        return _compared(name, got, reference.run(inputs))
    finally:
        reference.close()


def _compared(name: str, got: tuple[Array, ...], wanted: tuple[Array, ...]) -> Finding:
    pairs = [(a.astype(np.float64), b.astype(np.float64)) for a, b in zip(got, wanted, strict=True)]
    if not all(np.isfinite(a).all() for a, _ in pairs):
        return Finding(name, ok=False, detail="not all answers are finite numbers")
    worst = max(float(np.abs(a - b).max() / max(1e-9, np.abs(b).max())) for a, b in pairs)
    return Finding(
        name, ok=worst <= LARGEST_DIFFERENCE, detail=f"differ by {worst:.2e} of the largest answer"
    )


def _times(engine: TensorRtEngine, batch: int) -> Finding:
    inputs = _fill(engine, batch)
    times_ms = sorted(_timed_ms(lambda: engine.run(inputs)) for _ in range(ROUNDS))
    middle, p99 = statistics.median(times_ms), times_ms[int(0.99 * ROUNDS)]
    rate = 1e3 * batch / middle
    return Finding(
        f"one by one at batch {batch}", ok=True, detail=f"{middle:.3f} ms, p99 {p99:.3f}, {rate:.0f}/s"
    )


def _overlap(engine: TensorRtEngine, batch: int) -> Finding:
    """The same batches with the next one's upload under way: at least as many a second."""

    def all_of_them() -> None:
        engine.begin(engine.slots(batch))
        for _ in range(ROUNDS - 1):
            engine.begin(engine.slots(batch))
            engine.finish()
        engine.finish()

    try:
        each_ms = _timed_ms(all_of_them) / ROUNDS
    finally:
        with suppress(EngineError):  # until none is under way: what follows begins its own
            while True:
                engine.finish()
    return Finding(
        f"overlapping at batch {batch}", ok=True, detail=f"{each_ms:.3f} ms, {1e3 * batch / each_ms:.0f}/s"
    )


def _fill(engine: TensorRtEngine, batch: int) -> tuple[Array, ...]:
    for spec, slots in zip(engine.inputs, engine.slots(batch), strict=True):
        slots[...] = _random(spec, batch, 0)
    return engine.slots(batch)


def _random(spec: TensorSpec, images: int, seed: int) -> Array:
    dice = np.random.default_rng(seed)
    values: Array = dice.integers(0, 255, (images, *spec.shape)).astype(spec.dtype)
    return values if spec.dtype.kind in "ui" else (values.astype(np.float64) / 128 - 1).astype(spec.dtype)


def _timed_ms(work: Callable[[], object]) -> float:
    begin_s = time.perf_counter()
    work()
    return (time.perf_counter() - begin_s) * 1e3


if __name__ == "__main__":
    sys.exit(main())
