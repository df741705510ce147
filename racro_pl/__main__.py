"""``racro-pl`` and ``python -m racro_pl``."""

import sys


def main() -> int:
    """Entry point of the console script; returns the exit code."""
    from racro_pl.cli import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
