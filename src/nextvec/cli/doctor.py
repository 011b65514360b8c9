"""``nextvec doctor``: placeholder."""
def command() -> None:
    """What is installed."""
