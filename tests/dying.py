"""SIGKILL in the middle of placing files, for the processes of test_files.py and zygote.py."""

import os
import signal
from pathlib import Path


def die_at(nth):
    """SIGKILL instead of this process's nth rename or unlink, from now on."""
    calls = 0

    def counted(work):
        def call(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls == nth:
                os.kill(os.getpid(), signal.SIGKILL)
            return work(*arguments, **options)
        return call

    Path.replace, Path.unlink = counted(Path.replace), counted(Path.unlink)
