"""Connectionist temporal classification in JAX (Graves et al., 2006).

The forward recursion over a transcript's letters with blanks around them, in logarithms. After
each frame the largest state is taken off all of them and added to a total: so the numbers stay near
zero, and the gradient, by differentiation, is right to the last digits of its type. optax's
function is not used: it gives an impossible alignment a finite loss and a gradient.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax

from lockstep.datasets import framing
from lockstep.workloads.transcripts import BLANK


def ctc(logits: Array, tokens: Array, labels: Array, samples: Array) -> Array:
    """Return the negative log-probability of each transcript, ``(B,)``; 0 of impossible ones.

    Args:
        logits: of frames, ``(B, T, outputs)``; output 0 is the blank, letter k is output k + 1.
        tokens: letters of the transcripts, int32 ``(B, L)``.
        labels: how many each has, int32 ``(B,)``.
        samples: of the clips, int32 ``(B,)``.
    """
    rows, length = tokens.shape
    again = (tokens[:, 1:] == tokens[:, :-1]) & (jnp.arange(1, length) < labels[:, None])
    possible = framing.feasible(samples, labels + again.sum(axis=1, dtype=jnp.int32))
    # blank, letter, blank, letter, …, blank; a letter may follow another one directly.
    states = jnp.full((rows, 2 * length + 1), BLANK).at[:, 1::2].set(tokens + 1)
    direct = jnp.zeros(states.shape, bool).at[:, 3::2].set(tokens[:, 1:] != tokens[:, :-1])
    alive = jnp.arange(states.shape[1]) <= 2 * labels[:, None]
    shares = jax.nn.log_softmax(logits, axis=2)
    chosen = jax.nn.one_hot(states, logits.shape[2], dtype=logits.dtype)
    told = jnp.einsum("btv,bsv->tbs", shares, chosen, precision=lax.Precision.HIGHEST)
    told = jnp.where(alive, told, -jnp.inf)
    begin = jnp.where(jnp.arange(states.shape[1]) < 2, told[0], -jnp.inf)

    def step(carry: tuple[Array, Array], frame: tuple[Array, Array]) -> tuple:
        (before, total), (now, number) = carry, frame
        one, two = (jnp.pad(before, ((0, 0), (k, 0)), constant_values=-jnp.inf)[:, :-k]
                    for k in (1, 2))  # fmt: skip
        after = _sum(before, one, jnp.where(direct, two, -jnp.inf)) + now
        after, largest = _normalised(after)
        real = number < framing.count(samples)
        carry = jnp.where(real[:, None], after, before), total + jnp.where(real, largest, 0)
        return carry, None

    begin, largest = _normalised(begin)
    later = jnp.arange(1, len(told))
    (last, total), _ = lax.scan(step, (begin, largest), (told[1:], later))
    end = jnp.arange(states.shape[1]) - 2 * labels[:, None]
    final = jnp.where((end == 0) | (end == -1), last, -jnp.inf)
    found = _sum(*jnp.moveaxis(final, 1, 0)) + total
    return jnp.where(possible, -found, 0)


def _normalised(states: Array) -> tuple[Array, Array]:
    """Return states less the largest one, and that; a blank's is never minus infinity."""
    largest = lax.stop_gradient(states.max(axis=1))
    return states - largest[:, None], largest


def _sum(*logarithms: Array) -> Array:
    """Return the logarithm of a sum, minus infinity of nothing, without a gradient of 0 / 0."""
    stacked = jnp.stack(logarithms)
    largest = lax.stop_gradient(stacked.max(axis=0))
    nothing = largest == -jnp.inf
    total = jnp.exp(stacked - jnp.where(nothing, 0, largest)).sum(axis=0)
    return jnp.where(nothing, -jnp.inf, jnp.log(jnp.where(nothing, 1, total)) + largest)


def best(logits: Array, samples: Array) -> Array:
    """Return the likeliest output of each frame, int32 ``(B, T)``; blanks behind the last one."""
    real = jnp.arange(logits.shape[1]) < framing.count(samples)[:, None]
    return jnp.where(real, logits.argmax(axis=2), BLANK).astype(jnp.int32)
