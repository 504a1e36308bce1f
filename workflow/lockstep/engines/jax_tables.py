"""`lockstep.engines.touched` in JAX."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from lockstep.engines.contract import Job
from lockstep.engines.touched import PLACES, lookups

Tree = dict[str, Any]
NONE = jnp.iinfo(jnp.int32).max  # a row that no table has: reading it gives 0, writing does nothing


class Tables:
    """The tables of a job whose update is `touched_rows`."""

    def __init__(self, job: Job, replicated: jax.sharding.Sharding) -> None:
        """Find them.

        Args:
            replicated: the sharding of what each device has all of.
        """
        self._lookups, self._replicated = lookups(job), replicated

    def find(self, batch: Tree) -> tuple[Tree, Tree]:
        """Return the rows that a batch over all devices looks up.

        Returns:
            Rows by table, int32 ``(room,)``, `NONE` behind the last one; and the batch with their
            places, which `touched.shown` makes its ids.
        """
        rows, result = {}, dict(batch)
        for look in self._lookups:
            ids = lax.with_sharding_constraint(batch[look.ids].astype(jnp.int32), self._replicated)
            columns = None if look.columns is None else list(look.columns)
            own = ids.reshape(-1, 1) if columns is None else ids[:, jnp.array(columns)]
            distinct, places = _distinct(own)
            for k, (name, room) in enumerate(zip(look.tables, look.room)):
                rows[name] = distinct[:room, 0 if columns is None else k]
            if columns is not None:
                places = ids.at[:, jnp.array(columns)].set(places)
            result[PLACES + look.ids] = places.reshape(ids.shape)
        return rows, result


def take(rows: Tree, arrays: Tree) -> Tree:
    """Return arrays by parameter, at any depth: of tables the rows that were found."""
    return {
        name: take(rows, array)
        if isinstance(array, dict)
        else array.at[rows[name]].get(mode="fill", fill_value=0)
        if name in rows
        else array
        for name, array in arrays.items()
    }


def put(rows: Tree, whole: Tree, taken: Tree) -> Tree:
    """Return whole arrays into which the rows that were taken are written back."""
    return {
        name: put(rows, whole[name], array)
        if isinstance(array, dict)
        else whole[name].at[rows[name]].set(array, mode="drop")
        if name in rows
        else array
        for name, array in taken.items()
    }


def _distinct(ids: Array) -> tuple[Array, Array]:
    """Return each column's values, once each and sorted, `NONE` behind them; and their places.

    Args:
        ids: ``(n, columns)``, as both results.
    """
    order = jnp.argsort(ids, axis=0)
    ordered = jnp.take_along_axis(ids, order, axis=0)
    first = jnp.ones_like(ids[:1], dtype=bool)
    new = jnp.concatenate([first, ordered[1:] != ordered[:-1]])
    number = jnp.cumsum(new, axis=0, dtype=jnp.int32) - 1
    column = jnp.arange(ids.shape[1])
    places = jnp.zeros_like(ids).at[order, column].set(number)
    rows = jnp.full_like(ids, NONE).at[number, column].set(ordered)
    return rows, places
