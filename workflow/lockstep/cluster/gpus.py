"""What NVML tells of a process's GPUs while it trains: others on them, clocks, throttling."""

import importlib
import os
import time
from pathlib import Path
from typing import Any

EVERY = 5.0  # seconds between readings, each of which takes some hundred microseconds
THROTTLING = {  # bits of NVML's clock event reasons that slow a GPU down, by name
    0x0004: "power cap",
    0x0008: "hardware slowdown",
    0x0020: "thermal slowdown (software)",
    0x0040: "thermal slowdown (hardware)",
    0x0080: "power brake",
}


class GpuWatch:
    """Readings of the GPUs that this process sees, or the reason why there are none."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._devices: list[Any] = []
        self._read_at = -EVERY
        self.readings = self.others = 0
        self.clocks: list[int] = []
        self.reasons: dict[str, int] = {}
        self.problem: str | None = None
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if visible == "" or not Path("/dev/nvidiactl").exists():
            self.problem = "the run uses no NVIDIA GPU"
            return
        try:
            self._nvml = importlib.import_module("pynvml")
        except ImportError:
            self.problem = "pynvml is not installed here"
            return
        try:
            self._nvml.nvmlInit()
            self._devices = [self._handle(name) for name in self._names(visible)]
        except self._nvml.NVMLError as error:
            self.problem = f"NVML does not tell: {error}"

    def _names(self, visible: str | None) -> list[str]:
        if visible is None:
            return [str(index) for index in range(self._nvml.nvmlDeviceGetCount())]
        return [name.strip() for name in visible.split(",")]

    def _handle(self, name: str) -> Any:
        if name.isdecimal():
            return self._nvml.nvmlDeviceGetHandleByIndex(int(name))
        return self._nvml.nvmlDeviceGetHandleByUUID(name)

    def read(self) -> None:
        """Take a reading, if the last one was long enough ago."""
        if self.problem or time.monotonic() - self._read_at < EVERY:
            return
        self._read_at = time.monotonic()
        nvml = self._nvml
        try:
            for device in self._devices:
                running = nvml.nvmlDeviceGetComputeRunningProcesses(device)
                self.others = max(self.others, len(running) - 1)  # one of them is this process
                self.clocks.append(nvml.nvmlDeviceGetClockInfo(device, nvml.NVML_CLOCK_SM))
                bits = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(device)
                for bit, name in THROTTLING.items():
                    if bits & bit:
                        self.reasons[name] = self.reasons.get(name, 0) + 1
                self.readings += 1
        except nvml.NVMLError as error:
            self.problem = f"NVML does not tell: {error}"

    def facts(self) -> dict[str, Any]:
        """Return what was read, for a run's summary."""
        if self.problem or not self.readings:
            return {"absent": self.problem or "the run was too short for a reading"}
        clocks = sorted(self.clocks)
        return {
            "readings": self.readings,
            "other_processes": self.others,
            "sm_clock_mhz": {
                "min": clocks[0],
                "median": clocks[len(clocks) // 2],
                "max": clocks[-1],
            },
            "throttled": {name: count / self.readings for name, count in self.reasons.items()},
        }
