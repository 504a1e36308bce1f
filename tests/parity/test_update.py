"""Steps are made again from what a trace keeps, which is a sample of large tensors."""

import numpy as np
import pytest

from lockstep.parity import STEPS_FROM_GENERAL, update
from lockstep.parity.update import Rule
from lockstep.workloads import optimizers, recipe, taps

SHAPES = {"table": (200, 100), "bias": (7,)}  # the first is larger than a sample
RATE = 0.01


def side(settings: dict, shares: dict) -> dict[str, np.ndarray]:
    """What a sound framework's trace holds of two steps from a state in general position."""
    random = np.random.Generator(np.random.Philox(1))
    slots = optimizers.slots(settings)
    roles = {(role, n): np.abs(random.normal(size=s)) for n, s in SHAPES.items() for role in slots}
    roles |= {("param", name): random.normal(size=shape) for name, shape in SHAPES.items()}

    def kept(rung: str) -> dict[str, np.ndarray]:
        return {f"float64/{rung}/{role}/{n}": taps.sample(a) for (role, n), a in roles.items()}

    found = kept("restored")
    for step, rung in enumerate(STEPS_FROM_GENERAL):
        gradients = {name: random.normal(size=shape) for name, shape in SHAPES.items()}
        norm = optimizers.global_norm(gradients)
        found |= {f"float64/{rung}/gradient/{n}": taps.sample(g) for n, g in gradients.items()}
        found[f"float64/{rung}/norm"] = np.array(norm)
        numbers = {"learning_rate": RATE, **optimizers.scalars(settings, step)}
        for name, gradient in gradients.items():
            clipped = optimizers.clip_factor(settings, norm) * gradient
            own = {slot: roles[slot, name] for slot in slots}
            value = roles["param", name]
            after, change = optimizers.stepped(settings, shares[name], numbers, value, clipped, own)
            roles |= {(slot, name): array for slot, array in after.items()}
            roles["param", name] = value + change
        found |= kept(rung)
    return found


@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb"])
def test_a_large_tensor_is_judged_by_the_norm_of_all_gradients(name: str) -> None:
    given = {"name": name, "learning_rate": RATE, "clip_norm": 1.0}
    settings = recipe.recipe(optimizer=given)["optimizer"]
    shares = {n: optimizers.Share(1.0, 0.0) for n in SHAPES}
    rule = Rule(optimizer=settings, shares=shares)
    trace = side(settings, shares)
    for tensor, value, allowed in update.compared("float64", trace, trace, rule):
        assert value <= allowed, tensor
    for rung in STEPS_FROM_GENERAL:  # it is the norm that decides
        trace[f"float64/{rung}/norm"] = trace[f"float64/{rung}/norm"] * 0.9
    wrong = update.compared("float64", trace, trace, rule)
    assert any(value > allowed for _, value, allowed in wrong)
