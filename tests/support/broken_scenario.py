"""A scenario of the benchmarks that fails."""

ABOUT = "Fails."


def run():
    raise RuntimeError("nothing works")
