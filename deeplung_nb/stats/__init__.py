"""Agreement statistics: arrays or tables in, frozen results with full precision out.

A difference is always test - reference (automatic - expert). No module here needs torch, a GPU or
a CT.
"""
