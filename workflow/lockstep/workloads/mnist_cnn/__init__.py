"""The small convolutional network that PyTorch and JAX are most often compared by."""
