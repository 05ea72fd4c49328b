"""NVIDIA's tritonclient against a server of the tiny models: `python triton_client.py HOST:PORT`.

Runs in a process of its own, as clients do; prints one line for each part, exits 0 only if all passed.
The server must offer the models of tiny_server.py with system shared memory enabled.
"""

from __future__ import annotations

import queue
import sys
from collections.abc import Callable

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException, shared_memory

A = np.arange(8, dtype=np.float32).reshape(2, 4)
B = np.full((2, 4), 10, np.float32)
PIXELS = np.arange(2 * 48, dtype=np.uint8).reshape(2, 4, 4, 3)


def tensor(name: str, values: np.ndarray, datatype: str) -> triton.InferInput:
    given = triton.InferInput(name, list(values.shape), datatype)
    given.set_data_from_numpy(values)
    return given


def pair_inputs() -> list[triton.InferInput]:
    return [tensor("a", A, "FP32"), tensor("b", B, "FP32")]


def check_health(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("pair")
    assert not client.is_model_ready("absent")


def check_metadata(client: triton.InferenceServerClient) -> None:
    assert "statistics" in client.get_server_metadata().extensions
    metadata = client.get_model_metadata("pair", as_json=True)
    assert [entry["name"] for entry in metadata["inputs"]] == ["a", "b"]
    assert metadata["inputs"][0]["shape"] == ["-1", "4"]
    config = client.get_model_config("pair").config
    assert config.max_batch_size == 8


def check_infer(client: triton.InferenceServerClient) -> None:
    result = client.infer("pair", pair_inputs(), request_id="mine", timeout=10_000_000, priority=1)
    np.testing.assert_array_equal(result.as_numpy("sum"), A + B)
    np.testing.assert_array_equal(result.as_numpy("difference"), A - B)
    assert result.get_response().id == "mine"
    wanted = [triton.InferRequestedOutput("difference")]
    assert client.infer("pair", pair_inputs(), outputs=wanted).as_numpy("sum") is None


def check_compressed(client: triton.InferenceServerClient) -> None:
    result = client.infer("pair", pair_inputs(), compression_algorithm="gzip")
    np.testing.assert_array_equal(result.as_numpy("sum"), A + B)


def check_async_infer(client: triton.InferenceServerClient) -> None:
    answers: queue.Queue[object] = queue.Queue()
    for _ in range(20):
        client.async_infer("pair", pair_inputs(), callback=lambda result, error: answers.put(error or result))
    for _ in range(20):
        np.testing.assert_array_equal(answers.get(timeout=20).as_numpy("sum"), A + B)


def check_classification(client: triton.InferenceServerClient) -> None:
    wanted = [triton.InferRequestedOutput("scores", class_count=2)]
    classes = client.infer("colour", [tensor("image", PIXELS, "UINT8")], outputs=wanted).as_numpy("scores")
    assert classes.shape == (2, 2)
    assert [entry.decode().split(":")[2] for entry in classes[0]] == ["blue", "green"]


def refusal(call: Callable[[], object]) -> tuple[str, str]:
    """The status and the message of a call that the server must refuse."""
    try:
        call()
    except InferenceServerException as error:
        return error.status(), error.message()
    raise AssertionError("the call was answered")


def check_errors(client: triton.InferenceServerClient) -> None:
    status, message = refusal(lambda: client.infer("absent", pair_inputs()))
    assert status == "StatusCode.NOT_FOUND"
    assert message.startswith("Request for unknown model: 'absent' is not found")
    status, message = refusal(lambda: client.infer("whole", pair_inputs()))
    assert status == "StatusCode.INVALID_ARGUMENT"
    assert "'x'" in message


def check_stream(client: triton.InferenceServerClient) -> None:
    answers: queue.Queue[tuple[object, object]] = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    send = client.async_stream_infer
    for number in range(10):
        send("pair", pair_inputs(), request_id=str(number), enable_empty_final_response=True)
    send("absent", pair_inputs(), request_id="bad")
    for number in range(10):
        result, error = answers.get(timeout=20)
        assert error is None
        response = result.get_response()
        assert response.id == str(number)
        assert response.parameters["triton_final_response"].bool_param
        np.testing.assert_array_equal(result.as_numpy("sum"), A + B)
    result, error = answers.get(timeout=20)
    assert result is None
    assert "unknown model" in error.message()
    client.stop_stream()


def check_shared_memory(client: triton.InferenceServerClient) -> None:
    client.unregister_system_shared_memory()
    client.unregister_cuda_shared_memory()
    handle = shared_memory.create_shared_memory_region("io", "/boulton-triton-client", 3 * A.nbytes)
    try:
        shared_memory.set_shared_memory_region(handle, [A, B])
        client.register_system_shared_memory("io", "/boulton-triton-client", 3 * A.nbytes)
        assert list(client.get_system_shared_memory_status().regions) == ["io"]
        inputs = [triton.InferInput(name, [2, 4], "FP32") for name in ("a", "b")]
        inputs[0].set_shared_memory("io", A.nbytes)
        inputs[1].set_shared_memory("io", B.nbytes, offset=A.nbytes)
        wanted = triton.InferRequestedOutput("sum")
        wanted.set_shared_memory("io", A.nbytes, offset=2 * A.nbytes)
        client.infer("pair", inputs, outputs=[wanted])
        found = shared_memory.get_contents_as_numpy(handle, np.float32, [3, 2, 4])
        np.testing.assert_array_equal(found[2], A + B)
        client.unregister_system_shared_memory("io")
        assert not client.get_system_shared_memory_status().regions
    finally:
        shared_memory.destroy_shared_memory_region(handle)


def check_statistics(client: triton.InferenceServerClient) -> None:
    before = client.get_inference_statistics("pair").model_stats[0].inference_count
    client.infer("pair", pair_inputs())
    stats = client.get_inference_statistics("pair", "1").model_stats[0]
    assert stats.inference_count == before + 2
    assert stats.inference_stats.success.count > 0
    assert len(client.get_inference_statistics().model_stats) >= 3


def check_repository(client: triton.InferenceServerClient) -> None:
    index = client.get_model_repository_index()
    states = {(model.name, model.version): model.state for model in index.models}
    assert states["pair", "1"] == "READY"
    client.unload_model("pair")
    assert not client.is_model_ready("pair")
    client.load_model("pair")
    assert client.is_model_ready("pair")
    status, _ = refusal(lambda: client.load_model("pair", config="{}"))
    assert status == "StatusCode.INVALID_ARGUMENT"
    check_infer(client)


def check_load_generator(client: triton.InferenceServerClient) -> None:
    """The calls of Triton's load generator, in its order; it gives up at the first that fails."""
    metadata = client.get_model_metadata("colour")
    config = client.get_model_config("colour").config
    assert config.max_batch_size > 0
    client.unregister_system_shared_memory()
    client.unregister_cuda_shared_memory()
    if "statistics" in client.get_server_metadata().extensions:
        client.get_inference_statistics("colour")
    (image,) = metadata.inputs
    shape = (2, *image.shape[1:])
    given = tensor(image.name, np.zeros(shape, np.uint8), image.datatype)
    wanted = [triton.InferRequestedOutput(output.name) for output in metadata.outputs]
    answers: queue.Queue[tuple[object, object]] = queue.Queue()

    def keep(result: object, error: object) -> None:
        answers.put((result, error))

    for _ in range(10):
        client.async_infer("colour", [given], keep, outputs=wanted)
    for _ in range(10):
        result, error = answers.get(timeout=20)
        assert error is None, error
        assert len(result.get_response().raw_output_contents) == len(wanted)
        assert not any(output.HasField("contents") for output in result.get_response().outputs)
    send_by_hand(client, given)
    assert client.get_inference_statistics("colour").model_stats[0].inference_stats.success.count > 0


def send_by_hand(client: triton.InferenceServerClient, given: triton.InferInput) -> None:
    """The generator sends a reserved parameter that tritonclient refuses to: use the stub below it."""
    request = triton.service_pb2.ModelInferRequest(model_name="colour")
    request.inputs.append(given._get_tensor())
    request.raw_input_contents.append(given._get_content())
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    assert client._client_stub.ModelInfer(request).raw_output_contents


CHECKS = (
    check_health,
    check_metadata,
    check_infer,
    check_compressed,
    check_async_infer,
    check_classification,
    check_errors,
    check_stream,
    check_shared_memory,
    check_statistics,
    check_repository,
    check_load_generator,
)


def main(address: str) -> None:
    for check in CHECKS:
        with triton.InferenceServerClient(address) as client:
            check(client)
        print(f"{check.__name__}: passed", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
