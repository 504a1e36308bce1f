"""What the GPU is, what else runs on it, and the peaks that MFU divides by."""

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

Facts = dict[str, Any]

PEAKS: tuple[tuple[str, Mapping[str, float]], ...] = (
    ("H200 NVL|H100 NVL", {"bfloat16": 835e12, "tf32": 417e12, "float32": 60e12}),
    ("H100 PCIe", {"bfloat16": 756e12, "tf32": 378e12, "float32": 51e12}),
    ("H100|H200|GH200", {"bfloat16": 989e12, "tf32": 494e12, "float32": 67e12}),
    ("A100", {"bfloat16": 312e12, "tf32": 156e12, "float32": 19.5e12}),
    ("L40S", {"bfloat16": 362e12, "tf32": 183e12, "float32": 91.6e12}),
    (r"L4\b", {"bfloat16": 121e12, "tf32": 60e12, "float32": 30.3e12}),
)
"""Dense peaks in FLOP/s as NVIDIA's data sheets state them (half of those "with sparsity"), by a
pattern of the device's name; the first that fits counts."""


def peak(name: str, precision: str) -> float | None:
    """Return a GPU's dense peak in FLOP/s, None if it is not in the table or a slice of a GPU."""
    for pattern, peaks in PEAKS:
        if re.search(pattern, name) and "MIG" not in name:
            return peaks.get(precision)
    return None


def chosen() -> dict[str, str]:
    """Return the environment that shows children one GPU: the first of those that we may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:  # in the order in which the driver and NVML number them
        return {"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    return {"CUDA_VISIBLE_DEVICES": visible.split(",")[0]}


# Seen by a framework, in a child -----------------------------------------------------------------


def seen(framework: str) -> Facts:
    """Import a framework; return its versions and the device that it sees."""
    return _torch() if framework == "torch" else _jax()


def _torch() -> Facts:
    import torch

    facts: Facts = {"torch": torch.__version__, "cuda": torch.version.cuda}
    facts |= {"gpu": torch.cuda.is_available(), "device": "cpu"}
    if facts["gpu"]:
        properties = torch.cuda.get_device_properties(0)
        facts |= {
            "device": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "memory": properties.total_memory,
            "multiprocessors": properties.multi_processor_count,
            "cudnn": torch.backends.cudnn.version(),
        }
    return facts


def _jax() -> Facts:
    import flax
    import jax
    import optax

    device = jax.devices()[0]
    return {
        **{module.__name__: module.__version__ for module in (jax, flax, optax)},
        "jaxlib": jax.lib.__version__,
        "gpu": device.platform == "gpu",
        "device": device.device_kind if device.platform == "gpu" else "cpu",
        "platform_version": device.client.platform_version,
        "memory": (device.memory_stats() or {}).get("bytes_limit"),
    }


# Seen by the driver's library --------------------------------------------------------------------


def by_driver(visible: str) -> Facts:
    """Return what NVML says of a GPU; what it does not say has its reason as the value.

    Args:
        visible: as in CUDA_VISIBLE_DEVICES, a number or a UUID.
    """
    try:
        import pynvml as nvml

        nvml.nvmlInit()
    except Exception as error:  # not installed, no driver, not allowed
        return {"nvml": f"absent: {type(error).__name__}: {error}"}
    try:
        number = visible.isdecimal()
        find = nvml.nvmlDeviceGetHandleByIndex if number else nvml.nvmlDeviceGetHandleByUUID
        handle = find(int(visible) if number else visible)
    except Exception as error:
        return {"nvml": f"absent: {type(error).__name__}: {error} ({visible})"}
    try:
        return {name: _asked(ask) for name, ask in _questions(nvml, handle).items()}
    finally:
        nvml.nvmlShutdown()


def _asked(ask: Callable[[], Any]) -> Any:
    try:
        value = ask()
    except Exception as error:
        return f"absent: {type(error).__name__}: {error}"
    return value.decode() if isinstance(value, bytes) else value


def _questions(nvml: Any, gpu: Any) -> dict[str, Callable[[], Any]]:
    def reasons() -> Any:
        ask = getattr(nvml, "nvmlDeviceGetCurrentClocksEventReasons", None)
        return hex((ask or nvml.nvmlDeviceGetCurrentClocksThrottleReasons)(gpu))

    def processes() -> list[dict[str, Any]]:
        found = nvml.nvmlDeviceGetComputeRunningProcesses(gpu)
        return [{"pid": it.pid, "memory": it.usedGpuMemory} for it in found]

    return {
        "name": lambda: nvml.nvmlDeviceGetName(gpu),
        "uuid": lambda: nvml.nvmlDeviceGetUUID(gpu),
        "driver": nvml.nvmlSystemGetDriverVersion,
        "memory_total": lambda: nvml.nvmlDeviceGetMemoryInfo(gpu).total,
        "memory_used": lambda: nvml.nvmlDeviceGetMemoryInfo(gpu).used,
        "sm_mhz": lambda: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM),
        "sm_mhz_most": lambda: nvml.nvmlDeviceGetMaxClockInfo(gpu, nvml.NVML_CLOCK_SM),
        "memory_mhz": lambda: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_MEM),
        "clock_limits": reasons,
        "power_watts": lambda: nvml.nvmlDeviceGetPowerUsage(gpu) / 1e3,
        "power_limit_watts": lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1e3,
        "celsius": lambda: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU),
        "busy_percent": lambda: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu,
        "compute_mode": lambda: nvml.nvmlDeviceGetComputeMode(gpu),
        "mig": lambda: nvml.nvmlDeviceGetMigMode(gpu)[0],
        "ecc": lambda: nvml.nvmlDeviceGetEccMode(gpu)[0],
        "processes": processes,
    }


BUSY = 1 << 30  # bytes in use before anything of ours runs: more than a driver's own


def others(facts: Facts) -> str | None:
    """Return what else uses the GPU, None if nothing is seen to.

    In a container the processes of others may be out of sight, but not the memory they use.
    """
    found = facts.get("processes")
    if isinstance(found, list) and found:
        return f"{len(found)} other processes are on the GPU: times are theirs, too"
    used = facts.get("memory_used")
    if isinstance(used, int) and used > BUSY:
        return f"{used / 1e9:.1f} GB of the GPU are in use already: times may be others', too"
    busy = facts.get("busy_percent")
    return f"the GPU is {busy}% busy already" if isinstance(busy, int) and busy > 10 else None
