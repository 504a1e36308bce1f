"""A person's own pair of models: the first layer where the port differs, and why.

The pair is described by one Python file (`lockstep.port.pair`). What is compared, and how strictly,
is the ladder's (`lockstep.parity`): its distances, its tolerances and its twins.
"""

from lockstep.port.tapping import tap

__all__ = ["SCHEMA", "tap"]

SCHEMA = "lockstep-port/1"  # of what `--json` writes
PRECISIONS = ("float64", "float32", "bfloat16")
