"""A study in one file that a stranger can check, recompute and run again."""
