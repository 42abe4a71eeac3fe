"""The error of the room."""


class ScanError(ValueError):
    """An unusable scan or mask: names the case, the value, what was expected, the remedy."""
