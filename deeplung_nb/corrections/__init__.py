"""A person's reading of a CT: marks drawn into a mask, stroke by stroke, and never lost.

`tools` says which voxels a tool changes, `drawing` applies strokes and takes them back, `journal`
keeps each one on disk at once, `reading` is one reader's work on one scan: opened, gone on with,
finished, measured. Nothing here knows of a browser: `widgets.corrector` sends the strokes.
"""
