"""Turning a CNN into a model-repository entry, one step a module.

`sources` makes a `Candidate` of whatever was named; `baking` puts preprocessing into its graph; `parity`
compares the written file with the original; `writing` moves it into the repository in one step.
`server.export` strings them together.
"""
