"""What JAX is recorded to use is what PyTorch says of the same wheels."""

import pytest
import torch

from lockstep.engines import wheels


def test_a_library_that_is_not_installed_has_no_version() -> None:
    assert wheels.version("no-such-library") is None


def test_cudnn_is_the_one_that_pytorch_finds() -> None:
    packed = torch.backends.cudnn.version()
    if packed is None or wheels.version("cudnn") is None:
        pytest.skip("this PyTorch was built without CUDA")
    assert wheels.version("cudnn") == f"{packed // 10000}.{packed % 10000 // 100}.{packed % 100}"
