"""Who is in the study: manifests, frozen splits, and published data sets.

`schema` says what a manifest must hold, `manifest` reads it, `splits` decides who trains and who
tests, `public` turns a published data set into a manifest.
"""
