"""From bytes to values and back: requests, responses, tensors, shared memory."""
