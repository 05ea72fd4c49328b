"""Studies of what training costs: the published ones from their data, and what `boulton train-energy` ran.

`runs` says what a training is; `delrey`, `zeus` and `kept` read data. `quality` checks and cleans,
`statistics` is a thin layer over SciPy and scikit-posthocs. `findings` asks the questions of del Rey et al.,
`surfaces` those of batch size and power limit. `sections` is what a report is made of; `showing` puts it
before a reader.
"""
