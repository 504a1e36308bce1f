"""A run and a block: what a study consists of."""

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Scale:
    """Nodes x devices per node."""

    nodes: int
    devices: int

    @classmethod
    def parse(cls, text: str) -> "Scale":
        """Read a scale such as ``2x4``."""
        nodes, devices = text.split("x")
        return cls(int(nodes), int(devices))

    @property
    def size(self) -> int:
        """Devices over all nodes."""
        return self.nodes * self.devices

    def __str__(self) -> str:
        return f"{self.nodes}x{self.devices}"


@dataclass(frozen=True, kw_only=True)
class Run:
    """Workload x variant x scale x seed."""

    workload: str
    variant: str
    scale: Scale
    seed: int

    @property
    def name(self) -> str:
        """The run's name, which is also its folder below ``runs/``."""
        return f"{self.workload}/{self.variant}/{self.scale}/seed-{self.seed}"


@dataclass(frozen=True, kw_only=True)
class Block:
    """The runs that share one allocation, one after the other."""

    name: str
    runs: tuple[Run, ...]

    @property
    def scale(self) -> Scale:
        """The scale of all its runs."""
        return self.runs[0].scale
