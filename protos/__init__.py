"""The wire: the Open Inference Protocol (package inference) and the operator service (boulton.v1)."""
