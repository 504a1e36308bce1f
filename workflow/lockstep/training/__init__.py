"""The one loop, its checkpoints and records, the same for every framework."""
