"""Learning: from prepared cases to trained networks, and what they are worth.

`dataset` prepares cases and draws slices, `train` trains one network, `experiment` the folds of a
run and validates them, `plan` says how much work that is; `estimate` and `ablation` ask what the
recipe is worth, `benchmark` what it costs, `release` makes the network that the package brings.
"""
