"""The ladder: is it the same model? Asked before anything is timed."""
