"""A load generator for any server that speaks the Open Inference Protocol: closed loop and open loop.

In an open loop requests are due at times of their own, whatever the server does; latencies count from the
time a request was due, so that a server that stalls is charged for the requests that piled up meanwhile.
"""
