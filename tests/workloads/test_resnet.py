"""The residual networks are those of the literature."""

import re

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torchvision

from lockstep import workloads
from lockstep.engines.contract import Job
from lockstep.workloads import vision_flax, vision_torch, weights
from lockstep.workloads.resnet50_imagenet import torch_model


def counted(name: str) -> int:
    workload = workloads.spec(name)
    total = 0
    for parameter in workload.parameters(workload.recipe["model"]):
        size = 1
        for extent in parameter.shape:
            size *= extent
        total += size
    return total


def test_the_numbers_of_parameters_and_operations_are_those_published() -> None:
    assert counted("resnet50_imagenet") == 25_557_032
    assert counted("resnet18_cifar10") == 11_173_962
    for name, billions in (("resnet50_imagenet", 4.09), ("resnet18_cifar10", 0.56)):
        workload = workloads.spec(name)
        flops = workload.forward_flops(workload.recipe["model"])
        assert flops / 2e9 == pytest.approx(billions, abs=0.005)


@pytest.mark.parametrize("train", [True, False])
def test_resnet50_is_torchvisions_to_the_bit(train: bool) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.resnet50().double().train(train)
    with torch.no_grad():
        for name, tensor in theirs.state_dict().items():  # nothing at its neutral value
            if "bn" in name and tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor))
    workload = workloads.spec("resnet50_imagenet")
    model, data = workload.recipe["model"], workload.blank(workload.recipe["model"])
    variant = {"precision": "float64"}
    job = Job(workload=workload, recipe=workload.recipe, variant=variant, data=data, window_steps=1)
    ours = torch_model.build(model, job.settings).double()
    state = {k: v for k, v in theirs.state_dict().items() if "num_batches" not in k}
    ours.load_state_dict(state)
    ours.train(train)
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    assert torch.equal(ours(images), theirs(images))
    for name, buffer in ours.named_buffers():
        assert torch.equal(buffer, theirs.state_dict()[name]), name


def test_kernels_start_as_torchvisions_in_spread_and_norms_at_one() -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.resnet50().state_dict()
    workload = workloads.spec("resnet50_imagenet")
    model = {**workload.recipe["model"], "blocks": [1, 1, 1, 1]}
    state, names = weights.initial(workload, model, 0), torch_model.names(model)
    for parameter in workload.parameters(model):
        mine = torch.from_numpy(state[f"param/{parameter.name}"])
        other = theirs[names[parameter.name][0]]
        if other.numel() > 4000:
            assert mine.std().item() == pytest.approx(other.std().item(), rel=0.05), parameter.name
        elif re.search(r"\.scale$|norm\d?\.bias$", parameter.name):
            assert torch.equal(mine, other), parameter.name
        assert parameter.decay == parameter.name.endswith(".kernel")


def test_a_block_may_start_as_the_identity() -> None:
    workload = workloads.spec("resnet50_imagenet")
    model = {**workload.recipe["model"], "blocks": [1, 1], "width": 4, "zero_last_gamma": True}
    state = weights.initial(workload, model, 0)
    zero = [name for name, v in state.items() if name.endswith(".scale") and not v.any()]
    assert {n for n in zero if n.startswith("param/")} == {
        "param/stage1_block1.norm3.scale",
        "param/stage2_block1.norm3.scale",
    }


def test_top_5_counts_equal_logits_in_order_as_argmax_does() -> None:
    logits = torch.tensor([[1.0, 1, 1, 1, 1, 1, 0], [7.0, 6, 5, 4, 3, 2, 1]])
    for label, expected in ((4, [1, 1]), (5, [0, 0]), (0, [1, 1])):
        labels = torch.tensor([label, label], dtype=torch.int32)
        assert vision_torch.top_k(logits, labels, 5).tolist() == expected
        first = vision_torch.top_k(logits, labels, 1)
        assert torch.equal(first, vision_torch.accuracy(logits, labels))


def test_logits_that_are_not_numbers_are_right_for_no_label() -> None:
    logits = np.full((2, 7), np.nan, np.float32)
    logits[1, :6] = np.arange(6)  # NaN is the largest
    labels = np.array([6, 1], np.int32)
    for found in (
        vision_torch.top_k(torch.from_numpy(logits), torch.from_numpy(labels), 5),
        vision_flax.top_k(jnp.asarray(logits), jnp.asarray(labels), 5),
    ):
        assert found.tolist() == [0, 0]
