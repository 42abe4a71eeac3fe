"""Figures, tables, the comparison with the paper, and the report of a run.

`figures` draws, `tables` formats, `published` compares, `html` binds all of it into one page.
Nothing here estimates anything: that is done in `deeplung_nb.stats`; `counts` only counts.
"""
