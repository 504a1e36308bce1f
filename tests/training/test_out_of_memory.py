"""A framework that runs out of memory says so in many ways; the run's failure says it in one."""

import pytest

from lockstep.training import attempts, ending


class OutOfMemoryError(RuntimeError):
    """Has the name of PyTorch's."""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "out of memory"),
        (RuntimeError("RESOURCE_EXHAUSTED: Failed to allocate request for 2GiB"), "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory"),
        (MemoryError(), "out of memory"),
        (RuntimeError("shape mismatch"), "exit status 1"),
        (KeyError("out of memory"), "exit status 1"),
    ],
)
def test_an_error_of_memory_is_the_reason_of_the_failure(error, reason: str) -> None:
    assert attempts.why(ending.status_of(error)) == reason
