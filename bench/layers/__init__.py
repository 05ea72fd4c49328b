"""Where a network's time and energy go, layer by layer, on an engine: `boulton layers`.

`timing` (ONNX Runtime), `pytorch_timing` and `tensorrt_timing` time what an engine executes, as `timed` has
it; `origin` and `tensorrt_layers` find the nodes of the graph behind it. `cost` joins the times with the work
that `optimizer.layers` counts, against a `roofline`; `metering` adds energy by the rules of `energy`, on
parts that `cutting` cuts out. `study` puts it together, and `findings` says what it shows.
"""
