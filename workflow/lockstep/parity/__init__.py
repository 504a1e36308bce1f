"""The ladder: is it the same model? Asked before anything is timed."""

OVER_TWO = "float64x2"  # the precision of what two processes compute (`joint`)
