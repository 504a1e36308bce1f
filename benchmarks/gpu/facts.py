"""What is measured on: GPU, driver, libraries, what else runs there."""

from benchmarks.gpu import device
from benchmarks.gpu.child import Failed
from benchmarks.gpu.session import FRAMEWORKS, Session

VERSIONS = ("torch", "jax", "jaxlib", "flax", "optax", "cuda", "cudnn", "platform_version")
LONGEST = 120.0  # seconds to import a framework from a cold disk and find its device


def measure(session: Session) -> None:
    """Write the facts, and decide what can be measured: whatever sees a GPU, or tiny sizes."""
    results = session.results
    visible = session.environment["CUDA_VISIBLE_DEVICES"]
    gpu = device.by_driver(visible)
    name = gpu.get("name", gpu.get("nvml", ""))
    results.note("facts", "GPU by its driver", str(name), facts=gpu)
    other = device.others(gpu)
    if other:
        results.note("facts", "others", other, str(name))

    found = {}
    for framework in FRAMEWORKS:
        with session.child(framework) as child:
            try:
                found[framework] = child.ask("device", LONGEST, framework=framework)
            except Failed as error:
                results.note("facts", framework, f"cannot be measured: {error}")
                continue
        seen = found[framework]
        note = ", ".join(f"{k} {seen[k]}" for k in VERSIONS if seen.get(k))
        results.note("facts", framework, note, seen["device"], facts=seen)

    if any(seen["gpu"] for seen in found.values()):
        for framework, seen in found.items():
            if seen["gpu"]:
                session.devices[framework] = seen["device"]
            else:
                note = "sees no GPU, the other framework does: not measured"
                results.note("facts", framework, note, seen["device"])
    elif found:
        session.quick = session.keeps = True
        session.devices = {f: f"CPU ({f})" for f in found}
        note = "no GPU: tiny sizes on the CPU, which show that all of it runs and measure nothing"
        results.note("facts", "no GPU", note, "CPU")


def state(session: Session, part: str) -> None:
    """Write what clocks, power and temperature are after a part, where the driver reports them."""
    gpu = device.by_driver(session.environment["CUDA_VISIBLE_DEVICES"])
    if "nvml" in gpu:
        return
    names = ("sm_mhz", "memory_mhz", "power_watts", "celsius", "clock_limits", "memory_used")
    state = {name: gpu[name] for name in names}
    note = ", ".join(f"{name} {value}" for name, value in state.items())
    session.results.note(part, "GPU after this part", note, str(gpu["name"]), facts=gpu)
