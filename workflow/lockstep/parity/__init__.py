"""The ladder: is it the same model? Asked before anything is timed."""

TRACE = "lockstep-trace/4"  # schema of a trace
OVER_TWO = "float64x2"  # the precision of what two devices compute together (`joint`)
EDGES = ("the last step of an epoch", "the first step of the next epoch", "the last step of all")
UNDISTURBED, SWAPPED = "as it is", "two rows swapped"  # of a canary; the others change an array
STEPS_FROM_GENERAL = ("general", "general/later")
