"""One measurement in its own process: python -m benchmarks.one NAME FILE [--quick]."""

import importlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

from lockstep.cluster.place import Place


def main() -> None:
    """Measure, and write the rows to FILE."""
    Place.from_environment().pin()
    name, answer, *more = sys.argv[1:]
    rows = importlib.import_module(f"benchmarks.{name}").measure(quick="--quick" in more)
    Path(answer).write_text(json.dumps([asdict(row) for row in rows]))


if __name__ == "__main__":
    main()
