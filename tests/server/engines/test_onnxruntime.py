from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from server.engines.engine import NUMPY_DTYPES, Array
from server.engines.onnxruntime import OnnxRuntimeEngine, load_onnxruntime_engine
from server.engines.slots import BUFFER_BYTES_MAX, DEFAULT_MAX_BATCH
from server.errors import EngineError

WriteModel = Callable[..., Path]


@pytest.fixture
def engine(write_model: WriteModel) -> OnnxRuntimeEngine:
    return load_onnxruntime_engine(write_model(), max_batch=4, threads=1)


def images(count: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)


def by_hand(path: Path, batch: Array) -> Array:
    """The scores of the small CNN, computed with numpy."""
    kernel = onnx.numpy_helper.to_array(onnx.load(path).graph.initializer[0])
    windows = np.lib.stride_tricks.sliding_window_view(batch.astype(np.float64), (3, 3), axis=(1, 2))
    features: Array = np.einsum("nyxcij,kcij->nyxk", windows, kernel)
    return np.maximum(features, 0).mean(axis=(1, 2))


def single_node(operator: str, *more_inputs: onnx.TensorProto) -> onnx.ModelProto:
    """FP32 `y` from INT64 `x`, both [n, 1]."""
    node = helper.make_node(operator, [*(tensor.name for tensor in more_inputs), "x"], ["y"])
    x = helper.make_tensor_value_info("x", TensorProto.INT64, ("n", 1))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", 1))
    graph = helper.make_graph([node], "test", [x], [y], more_inputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def look_up() -> onnx.ModelProto:
    """Fails while running when an index is beyond the table."""
    return single_node("Gather", helper.make_tensor("table", TensorProto.FLOAT, (3,), [10.0, 20.0, 30.0]))


class TestRun:
    def test_computes_the_network(self, write_model: WriteModel) -> None:
        path = write_model()
        engine = load_onnxruntime_engine(path, threads=2)
        scores, top = engine.run((images(3),))
        np.testing.assert_allclose(scores, by_hand(path, images(3)), rtol=1e-4)
        assert top.tolist() == scores.argmax(axis=1).tolist()

    def test_a_row_does_not_depend_on_its_batch(self, engine: OnnxRuntimeEngine) -> None:
        together = engine.run((images(4),))[0]
        alone = [engine.run((images(4)[row : row + 1],))[0][0] for row in range(4)]
        np.testing.assert_allclose(together, alone, rtol=1e-5)

    def test_says_what_it_is(self, engine: OnnxRuntimeEngine) -> None:
        assert (engine.platform, engine.simulated, engine.reads_foreign_memory) == (
            "onnxruntime_onnx",
            False,
            True,
        )

    @pytest.mark.parametrize("offset", [1, 2, 3])
    def test_what_lies_at_an_odd_address_is_right_too(self, write_identity: WriteModel, offset: int) -> None:
        engine = load_onnxruntime_engine(write_identity(("x", TensorProto.FLOAT, ("n", 5))), max_batch=4)
        values = np.arange(15, dtype=np.float32).reshape(3, 5)
        message = bytes(offset) + values.tobytes()
        odd = np.frombuffer(message, np.float32, offset=offset).reshape(3, 5)
        assert not odd.flags.aligned
        assert np.array_equal(engine.run((odd,))[0], values)

    @pytest.mark.parametrize("datatype", NUMPY_DTYPES)
    def test_every_datatype_goes_in_and_out(self, write_identity: WriteModel, datatype: str) -> None:
        dtype = NUMPY_DTYPES[datatype]
        path = write_identity(("x", helper.np_dtype_to_tensor_dtype(dtype), ("n", 3)))
        engine = load_onnxruntime_engine(path, max_batch=2)
        assert (engine.inputs[0].datatype, engine.outputs[0].datatype) == (datatype, datatype)
        values = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
        (out,) = engine.run((values,))
        assert out.dtype == dtype
        assert np.array_equal(out, values)

    def test_several_inputs_in_graph_order(self, write_identity: WriteModel) -> None:
        path = write_identity(("b", TensorProto.FLOAT, ("n", 2)), ("a", TensorProto.INT64, ("n",)))
        engine = load_onnxruntime_engine(path, max_batch=4)
        assert [spec.name for spec in engine.inputs] == ["b", "a"]
        b, a = np.ones((3, 2), np.float32), np.arange(3)
        outputs = engine.run((b, a))
        assert np.array_equal(outputs[0], b)
        assert np.array_equal(outputs[1], a)


class TestRefusedBeforeRunning:
    @pytest.mark.parametrize(
        ("batch", "words"),
        [
            (
                np.zeros((2, 6, 6), np.uint8),
                r"takes a contiguous uint8 array of shape \['batch', 6, 6, 3\], got uint8",
            ),
            (np.zeros((2, 6, 6, 4), np.uint8), r"got uint8 of shape \[2, 6, 6, 4\]"),
            (np.zeros((2, 6, 6, 3), np.float32), "got float32"),
            (np.zeros((2, 6, 3, 6), np.uint8).transpose(0, 1, 3, 2), "takes a contiguous"),
            (np.zeros((0, 6, 6, 3), np.uint8), "1 to 4 images, got 0"),
            (np.zeros((5, 6, 6, 3), np.uint8), "1 to 4 images, got 5"),
        ],
    )
    def test_wrong_arrays(self, engine: OnnxRuntimeEngine, batch: Array, words: str) -> None:
        with pytest.raises(EngineError, match=words):
            engine.run((batch,))
        assert len(engine.run((images(2),))[0]) == 2

    def test_wrong_number_of_inputs(self, engine: OnnxRuntimeEngine) -> None:
        with pytest.raises(EngineError, match="has 1 inputs, got 2"):
            engine.run((images(1), images(1)))

    def test_inputs_that_disagree_about_the_batch(self, write_identity: WriteModel) -> None:
        path = write_identity(("a", TensorProto.FLOAT, ("n", 2)), ("b", TensorProto.FLOAT, ("n", 2)))
        engine = load_onnxruntime_engine(path, max_batch=4)
        with pytest.raises(EngineError, match="input 'b'"):
            engine.run((np.zeros((2, 2), np.float32), np.zeros((3, 2), np.float32)))


class TestFailureWhileRunning:
    def test_is_an_engine_error_and_the_engine_remains_usable(self, write_model: WriteModel) -> None:
        engine = load_onnxruntime_engine(write_model(look_up()), max_batch=2)
        with pytest.raises(EngineError, match=r"ONNX Runtime failed: .*out of"):
            engine.run((np.array([[99]]),))
        assert engine.run((np.array([[2]]),))[0].tolist() == [[30.0]]


class TestBatch:
    def test_left_open_it_has_a_default(self, write_model: WriteModel) -> None:
        assert load_onnxruntime_engine(write_model()).max_batch == DEFAULT_MAX_BATCH

    def test_configured(self, write_model: WriteModel) -> None:
        assert load_onnxruntime_engine(write_model(), max_batch=3).max_batch == 3

    def test_very_large_inputs_get_a_smaller_default(self, write_identity: WriteModel) -> None:
        side = 8192
        path = write_identity(("x", TensorProto.FLOAT, ("n", side, side)))
        engine = load_onnxruntime_engine(path)
        assert engine.max_batch == BUFFER_BYTES_MAX // (side * side * 4) < DEFAULT_MAX_BATCH

    @pytest.mark.parametrize("wanted", [0, -1, 10**9])
    def test_out_of_bounds(self, write_model: WriteModel, wanted: int) -> None:
        largest = BUFFER_BYTES_MAX // 108
        with pytest.raises(EngineError, match=f"max_batch is {wanted}; 1 to {largest} are allowed"):
            load_onnxruntime_engine(write_model(), max_batch=wanted)

    def test_cannot_be_configured_where_the_graph_has_none(self, write_model: WriteModel) -> None:
        with pytest.raises(EngineError, match="no dynamic batch dimension"):
            load_onnxruntime_engine(write_model(batch=1), max_batch=4)

    def test_no_buffer_is_reserved_before_it_is_used(self, engine: OnnxRuntimeEngine) -> None:
        engine.run((images(2),))
        assert engine._slots is None
        assert engine.input_buffers[0] is engine.input_buffers[0]


class TestRefusedModels:
    def test_dynamic_dimensions_by_name(self, write_identity: WriteModel) -> None:
        path = write_identity(("image", TensorProto.FLOAT, ("n", 3, "height", 8)))
        with pytest.raises(
            EngineError, match=r"input 'image' has a dynamic dimension 2 \('height'\).*only the batch"
        ):
            load_onnxruntime_engine(path)

    def test_dynamic_dimensions_without_a_name(self, write_identity: WriteModel) -> None:
        path = write_identity(("image", TensorProto.FLOAT, ("n", 3, None)))
        with pytest.raises(EngineError, match=r"input 'image' has a dynamic dimension 2"):
            load_onnxruntime_engine(path)

    @pytest.mark.parametrize("kind", [TensorProto.STRING, TensorProto.BFLOAT16, TensorProto.FLOAT8E4M3FN])
    def test_types_that_have_no_numpy_dtype(self, write_identity: WriteModel, kind: int) -> None:
        path = write_identity(("x", kind, ("n", 3)))
        with pytest.raises(EngineError, match=str(path)):
            load_onnxruntime_engine(path)

    def test_strings_by_name(self, write_identity: WriteModel) -> None:
        path = write_identity(("text", TensorProto.STRING, ("n", 3)))
        with pytest.raises(
            EngineError, match=r"input 'text' is of type tensor\(string\); allowed are tensor\(bool\)"
        ):
            load_onnxruntime_engine(path)

    def test_an_unknown_shape_is_not_taken_for_a_scalar(self, write_identity: WriteModel) -> None:
        path = write_identity(("x", TensorProto.FLOAT, ()))
        assert load_onnxruntime_engine(path).inputs[0].shape == ()
        model = onnx.load(path)
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.ClearField("shape")
        onnx.save(model, path)
        with pytest.raises(EngineError, match="the graph does not say what shape 'x' has"):
            load_onnxruntime_engine(path)

    def test_a_batch_that_only_some_tensors_have(self, write_identity: WriteModel) -> None:
        path = write_identity(("a", TensorProto.FLOAT, ("n", 3)), ("b", TensorProto.FLOAT, (1, 3)))
        with pytest.raises(EngineError, match="dynamic for some inputs or outputs and fixed for others"):
            load_onnxruntime_engine(path)

    def test_empty_dimensions(self, write_identity: WriteModel) -> None:
        path = write_identity(("x", TensorProto.FLOAT, ("n", 0)))
        with pytest.raises(EngineError, match="at least 1"):
            load_onnxruntime_engine(path)

    def test_items_that_are_too_large(self, write_identity: WriteModel) -> None:
        path = write_identity(("x", TensorProto.UINT8, ("n", BUFFER_BYTES_MAX + 1)))
        with pytest.raises(EngineError, match="one item takes"):
            load_onnxruntime_engine(path)

    def test_a_negative_number_of_threads(self, write_model: WriteModel) -> None:
        with pytest.raises(EngineError, match="threads must be 0"):
            load_onnxruntime_engine(write_model(), threads=-1)


class TestRefusedFiles:
    @pytest.mark.parametrize(
        "content",
        [b"GIF89a not a model at all", b"\x00" * 100, b"\x08\x08", b"\xff" * 4096, b"{}"],
        ids=["foreign", "zeros", "no graph", "ones", "json"],
    )
    def test_what_is_not_a_model(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "model.onnx"
        path.write_bytes(content)
        with pytest.raises(EngineError, match=f"cannot load {path}"):
            load_onnxruntime_engine(path)

    @pytest.mark.parametrize("kept", [0.05, 0.3, 0.6, 0.9, 0.99])
    def test_a_truncated_model(self, write_model: WriteModel, kept: float) -> None:
        path = write_model()
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * kept)])
        with pytest.raises(EngineError, match=str(path)):
            load_onnxruntime_engine(path)

    def test_a_damaged_name(self, write_model: WriteModel) -> None:
        path = write_model()
        path.write_bytes(path.read_bytes().replace(b"scores", b"sc\xf6res"))
        with pytest.raises(EngineError, match=str(path)):
            load_onnxruntime_engine(path)

    def test_an_empty_file(self, tmp_path: Path) -> None:
        path = tmp_path / "model.onnx"
        path.touch()
        with pytest.raises(EngineError, match="is empty"):
            load_onnxruntime_engine(path)

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(EngineError, match="is not a file"):
            load_onnxruntime_engine(tmp_path / "absent.onnx")
        with pytest.raises(EngineError, match="is not a file"):
            load_onnxruntime_engine(tmp_path)

    def test_an_unknown_operator(self, write_model: WriteModel) -> None:
        with pytest.raises(EngineError, match="Frobnicate"):
            load_onnxruntime_engine(write_model(single_node("Frobnicate")))

    def test_no_runtime(self, write_model: WriteModel, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        with pytest.raises(EngineError, match=r"pip install 'boulton\[cpu\]'"):
            load_onnxruntime_engine(write_model())


def test_what_is_wrong_is_raised_and_not_written_past_the_log(
    write_model: WriteModel, capfd: pytest.CaptureFixture[str]
) -> None:
    engine = load_onnxruntime_engine(write_model(look_up()))
    with pytest.raises(EngineError, match="idx=7"):
        engine.run((np.array([[7]]),))
    assert capfd.readouterr().err == ""


class TestClose:
    def test_releases_session_and_buffers(self, engine: OnnxRuntimeEngine) -> None:
        session = weakref.ref(engine._session)
        buffer = weakref.ref(engine.input_buffers[0])
        engine.close()
        gc.collect()
        assert (session(), buffer()) == (None, None)
