"""MLServer serving one ONNX file. Imported by MLServer in its own environment; imports nothing of Boulton.

The model's settings name the file (`parameters.uri`) and the threads (`parameters.extra.threads`).
"""

from __future__ import annotations

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxModel(MLModel):  # type: ignore[misc]  # MLServer is not installed here; it asks for this base class
    """One network with the session options that Boulton uses."""

    async def load(self) -> bool:
        """Open the file that the settings name."""
        parameters = self.settings.parameters
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(parameters.extra["threads"])
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            parameters.uri, options, providers=["CPUExecutionProvider"]
        )
        self._outputs = [output.name for output in self._session.get_outputs()]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Run one request or, with adaptive batching, one batch of them."""
        feed = {tensor.name: NumpyCodec.decode_input(tensor) for tensor in payload.inputs}
        answers = zip(self._outputs, self._session.run(None, feed), strict=True)
        encoded = [NumpyCodec.encode_output(name, answer) for name, answer in answers]
        return InferenceResponse(model_name=self.name, outputs=encoded)
