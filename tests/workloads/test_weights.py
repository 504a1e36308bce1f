"""Initial weights: made once, the same everywhere, and a state survives its files."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from lockstep import workloads
from lockstep.errors import UserError
from lockstep.workloads import recipe, weights


@pytest.fixture(params=workloads.names())
def workload(request: pytest.FixtureRequest):
    return workloads.spec(request.param)


def model_of(workload) -> dict:
    """Its small model: the large ones take seconds to draw."""
    return recipe.override(workload.recipe, workload.small, where=workload.name)["model"]


def state_of(workload, seed: int = 0) -> dict[str, np.ndarray]:
    return weights.initial(workload, model_of(workload), seed)


def test_a_seed_gives_the_same_weights(workload) -> None:
    assert weights.digest(state_of(workload)) == weights.digest(state_of(workload))
    assert weights.digest(state_of(workload)) != weights.digest(state_of(workload, 1))


def test_every_parameter_is_there_with_its_shape(workload) -> None:
    state = state_of(workload)
    for parameter in workload.parameters(model_of(workload)):
        assert state[f"param/{parameter.name}"].shape == parameter.shape


def test_weights_are_within_their_bound_and_spread(workload) -> None:
    state = state_of(workload)
    for parameter in workload.parameters(model_of(workload)):
        values = state[f"param/{parameter.name}"]
        if parameter.bound:
            assert np.abs(values).max() <= parameter.bound
            if values.size > 500:
                assert values.std() == pytest.approx(parameter.bound / 3**0.5, rel=0.1)


def test_mnist_cnn_starts_where_it_did_when_this_was_written() -> None:
    """Guards archived studies: initial weights must not change with a library's version."""
    state = state_of(workloads.spec("mnist_cnn"))
    # It was written when a state held the first momentum, zeros, too.
    momenta = {name.replace("param/", "momentum/"): np.zeros_like(a) for name, a in state.items()}
    assert weights.digest({**state, **momenta}).startswith("1ce5d2eef912")


def test_a_twin_is_a_few_units_in_the_last_place_away(workload) -> None:
    state = state_of(workload)
    twin = weights.perturbed(state, 0)
    for name, value in state.items():
        if name.startswith("param/"):
            units = np.abs(twin[name] - value) / np.spacing(np.abs(value))
            # Twice as large or half as large beyond a power of two.
            assert (units >= weights.MOVED / 2).all() and (units <= 2 * weights.MOVED).all()
        else:
            assert (twin[name] == value).all()


def test_a_state_survives_its_file(workload, tmp_path: Path) -> None:
    state = state_of(workload)
    weights.save(tmp_path / "a.safetensors", state)
    weights.save(tmp_path / "b.safetensors", dict(reversed(state.items())))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert weights.digest(weights.load(tmp_path / "a.safetensors")) == weights.digest(state)


def test_writing_a_state_holds_no_copy_of_it(tmp_path: Path) -> None:
    state = {"param/table": np.ones(1 << 20, np.float32)}
    tracemalloc.start()
    weights.save(tmp_path / "a.safetensors", state)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < state["param/table"].nbytes / 4


def test_a_file_that_is_no_state_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match=r"a\.safetensors: not a readable safetensors file"):
        weights.load(tmp_path / "a.safetensors")
