"""A recipe's optimizer in Optax: from gradients to updates, before the learning rate."""

import optax
from flax.traverse_util import unflatten_dict

from lockstep.engines.contract import Job
from lockstep.workloads import naming


def transformation(job: Job, names: naming.Names) -> optax.GradientTransformation:
    """Return what turns gradients into updates; a step subtracts learning rate x update.

    Coupled decay is added to the gradient and passes through momentum (L2 regularisation);
    decoupled decay is added to the update (Loshchilov and Hutter, Decoupled weight decay
    regularization, 2019).
    """
    settings = job.recipe["optimizer"]
    parts = []
    if settings["momentum"]:
        parts.append(optax.trace(settings["momentum"], nesterov=settings["nesterov"]))
    if settings["weight_decay"]:
        parameters = job.workload.parameters(job.recipe["model"])
        mask = unflatten_dict({names[p.name][0]: p.decay for p in parameters}, sep="/")["params"]
        decay = optax.add_decayed_weights(settings["weight_decay"], mask)
        parts.insert(0 if settings["decay"] == "coupled" else len(parts), decay)
    return optax.chain(*parts) if parts else optax.identity()
