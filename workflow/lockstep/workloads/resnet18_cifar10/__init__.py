"""The residual network that CIFAR-10 is most often trained with."""
