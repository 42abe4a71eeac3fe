"""Who is in the study: manifests, frozen splits, and published data sets.

`schema` says what a manifest must hold, `manifest` reads it, `splits` decides who trains and who
tests, `cases` reads a run's cases; `fetch` gets published sets, `adapters` make manifests of them.
"""
