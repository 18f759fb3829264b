"""Search for inputs that break a parser, with atheris (`pip install atheris`, Linux and macOS).

    python scripts/fuzz.py pairs --seconds 300
    python scripts/fuzz.py --list

Targets are those of tests/fuzz/targets/. Inputs that reach new code are gathered in --corpus (a temporary folder
without it); an input that breaks the parser is written to the current folder as crash-..., with the traceback above it.
Put it into tests/fuzz/seeds/TARGET once the parser is mended: the tests then run it for ever.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "fuzz")]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", nargs="?")
    parser.add_argument("--seconds", type=int, default=60, help="how long (60)")
    parser.add_argument("--corpus", type=Path, help="folder to gather inputs in, and to begin from")
    parser.add_argument("--longest", type=int, default=4096, help="longest input in bytes (4096)")
    parser.add_argument("--list", action="store_true", help="name the targets")
    asked = parser.parse_args()

    import atheris

    with atheris.instrument_imports(include=["hardnet_match", "targets"]):
        import targets  # type: ignore[import-not-found]

        known = targets.names()
        if asked.list or asked.target not in known:
            print("\n".join(known))
            raise SystemExit(0 if asked.list else 2)
        targets.run(asked.target, targets.seeds(asked.target)[0], Path(tempfile.mkdtemp()))  # its imports too

    shared_memory = Path("/dev/shm")
    place = Path(tempfile.mkdtemp(dir=shared_memory if shared_memory.is_dir() else None))
    corpus = asked.corpus or Path(tempfile.mkdtemp())
    corpus.mkdir(parents=True, exist_ok=True)
    counts = {"read": 0, "refused": 0}
    begun = time.monotonic()

    def one(data: bytes) -> None:
        told = targets.run(asked.target, bytes(data), place)
        counts["refused" if told else "read"] += 1
        if time.monotonic() - begun > asked.seconds:
            print(f"{asked.target}: {counts['read']} read, {counts['refused']} refused, none broke it", flush=True)
            place.rmdir()
            # libFuzzer's own exit would print pages of statistics
            import os

            os._exit(0)

    options = [f"-max_len={asked.longest}", "-timeout=20", "-rss_limit_mb=4096", "-print_final_stats=0", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *options, str(corpus), str(targets.SEEDS / asked.target)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
