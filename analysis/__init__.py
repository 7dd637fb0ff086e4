"""Analysis of trajectories and run folders: numbers, tables and figures.

Scripts import it before Matplotlib, whose import fails if MPLBACKEND names a package that is not installed, such as
the one that a notebook leaves to the programs it starts. Figures are written to files and need no backend.
"""

import os
import sys


def _without_missing_backend() -> None:
    given = None if "matplotlib" in sys.modules else os.environ.pop("MPLBACKEND", None)
    if given is None:
        return
    try:
        import matplotlib

        matplotlib.rcParams["backend"] = given  # as Matplotlib itself does when it is imported
    except ImportError:  # benchmarks/gpu.py runs without it
        pass
    except ValueError:
        given = "agg"
    os.environ["MPLBACKEND"] = given


_without_missing_backend()
