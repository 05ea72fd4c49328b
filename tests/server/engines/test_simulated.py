from __future__ import annotations

import numpy as np
import pytest

from optimizer.devices.simulated import SimulatedGpu
from optimizer.twin.profile import load_profile
from server.engines.engine import Engine, TensorSpec
from server.engines.simulated import SimulatedEngine
from server.errors import EngineError

IMAGE = TensorSpec("image", "UINT8", (4, 4, 3))
SCORES = TensorSpec("scores", "FP32", (10,))


class Sleeper:
    """A clock that sleeping moves."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def time() -> Sleeper:
    return Sleeper()


@pytest.fixture
def gpu(time: Sleeper) -> SimulatedGpu:
    return SimulatedGpu(load_profile("v100"), clock=time)


def engine_on(
    gpu: SimulatedGpu, time: Sleeper, max_batch: int = 8, model: str = "resnet50"
) -> SimulatedEngine:
    return SimulatedEngine(gpu, model, (IMAGE,), (SCORES,), max_batch, sleep=time.sleep)


def test_it_is_an_engine_that_says_it_is_simulated(gpu: SimulatedGpu, time: Sleeper) -> None:
    engine: Engine = engine_on(gpu, time)
    assert engine.simulated
    assert engine.platform == "boulton_simulated"
    assert engine.max_batch == 8
    assert [(buffer.shape, buffer.dtype) for buffer in engine.input_buffers] == [((8, 4, 4, 3), np.uint8)]


def test_a_batch_takes_the_modelled_time_and_answers_zeros(gpu: SimulatedGpu, time: Sleeper) -> None:
    engine = engine_on(gpu, time)
    gpu.read()
    (scores,) = engine.run((engine.input_buffers[0][:5],))
    assert scores.shape == (5, 10)
    assert scores.dtype == np.float32
    assert not scores.any()
    assert time.now_s == pytest.approx(gpu.expected_s("resnet50", 5), rel=0.1)
    taken_s, time.now_s = time.now_s, 1.0
    energy = gpu.read().energy
    assert energy.joules is not None
    assert energy.joules > 23 * (1.0 - taken_s) + 100 * taken_s, "the batch costs more than idling"


def test_answers_belong_to_the_caller(gpu: SimulatedGpu, time: Sleeper) -> None:
    engine = engine_on(gpu, time)
    (first,) = engine.run((engine.input_buffers[0][:1],))
    first.fill(7)
    assert not engine.run((engine.input_buffers[0][:1],))[0].any()


def test_without_a_batch_dimension_shapes_are_whole(gpu: SimulatedGpu, time: Sleeper) -> None:
    engine = engine_on(gpu, time, max_batch=0)
    assert engine.input_buffers[0].shape == (4, 4, 3)
    assert engine.run(engine.input_buffers)[0].shape == (10,)


def test_misuse_is_an_engine_error(gpu: SimulatedGpu, time: Sleeper) -> None:
    engine = engine_on(gpu, time)
    with pytest.raises(EngineError, match="1 to 8 images, got 9"):
        engine.run((np.zeros((9, 4, 4, 3), np.uint8),))
    with pytest.raises(EngineError, match=r"no model 'vgg'; it has .*resnet50"):
        engine_on(gpu, time, model="vgg").run((engine.input_buffers[0][:1],))
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.run((engine.input_buffers[0][:1],))
