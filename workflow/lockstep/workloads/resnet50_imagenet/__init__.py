"""The residual network that accelerators are most often compared by."""
