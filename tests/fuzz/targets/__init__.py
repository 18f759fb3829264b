"""Every parser of the package as a function of bytes: it returns, or raises an error of this package; nothing else.

`tests/test_fuzz.py` runs the kept seeds and mutations of them through each; `scripts/fuzz.py` lets atheris search.
Seeds lie in `tests/fuzz/seeds/TARGET/`; a file that once broke a parser stays there.
"""

from . import archives, hdf5, pictures, records, text  # noqa: F401  (they register their targets)
from .registry import SEEDS, names, run, seeds

__all__ = ["SEEDS", "names", "run", "seeds"]
