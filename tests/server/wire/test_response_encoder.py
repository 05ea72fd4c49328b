from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from protos import grpc_service_pb2 as pb
from server.wire.response_encoder import encode_response, response_head, stream_response

TEXT = st.text(max_size=200)


@st.composite
def responses(draw: st.DrawFn) -> pb.ModelInferResponse:
    response = pb.ModelInferResponse(model_name=draw(TEXT), model_version=draw(TEXT))
    for name in draw(st.lists(TEXT, max_size=2)):
        response.parameters[name].bool_param = True
    for raw in draw(st.lists(st.binary(max_size=400), max_size=3)):
        response.outputs.add(name=draw(TEXT), datatype="FP32", shape=draw(st.lists(st.integers(1, 2**40))))
        response.raw_output_contents.append(raw)
    return response


def head_of(response: pb.ModelInferResponse) -> pb.ModelInferResponse:
    head = pb.ModelInferResponse()
    head.CopyFrom(response)
    head.ClearField("raw_output_contents")
    return head


@given(responses(), TEXT)
def test_the_generated_class_reads_what_was_encoded(response: pb.ModelInferResponse, request_id: str) -> None:
    encoded = encode_response(
        response_head(head_of(response)), request_id, list(response.raw_output_contents)
    )
    response.id = request_id
    assert pb.ModelInferResponse.FromString(encoded) == response


def test_lengths_of_several_bytes_and_memoryviews() -> None:
    raw = bytes(range(256)) * 1000
    encoded = encode_response(response_head(pb.ModelInferResponse()), "", [memoryview(raw), b""])
    assert list(pb.ModelInferResponse.FromString(encoded).raw_output_contents) == [raw, b""]


@given(responses())
def test_stream_responses_wrap_a_response(response: pb.ModelInferResponse) -> None:
    wrapped = pb.ModelStreamInferResponse.FromString(stream_response(response.SerializeToString()))
    assert wrapped.infer_response == response
    assert wrapped.error_message == ""
