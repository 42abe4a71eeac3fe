"""deeplung_nb: COVID-19 pneumonia measured on chest CT, and how well a machine agrees with experts.

Importing the package loads nothing heavy: statistics, tables and figures work without torch.
"""

import os

__version__ = "0.1.0"

# The same numbers whatever the memory's alignment and the machine's load: without these, Intel's
# library may sum in another order from one process to the next. Read at its first use.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
os.environ.setdefault("MKL_DYNAMIC", "FALSE")
