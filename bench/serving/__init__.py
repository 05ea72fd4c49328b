"""How fast is the server? Ratios against an echo server, ONNX Runtime alone and other servers, in one run.

Each module measures one thing and can be run alone, `python -m bench.serving.wire`; all of them:
`python -m bench.serving`. Absolute numbers belong to the machine and are printed for orientation; the ratios
are the result. Subjects are measured in turns, round after round, so that a change of the machine's mood hits
all of them.
"""
