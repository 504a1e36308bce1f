"""The two frameworks behind one contract (`contract.Engine`); an engine knows no workload."""

import importlib

from lockstep.engines import environment
from lockstep.engines.contract import Engine, Job


def start(job: Job) -> Engine:
    """Import the framework that a job asks for and return its engine.

    Raises:
        UserError: the environment would keep a compiled variant from being compiled.
    """
    environment.refuse(job)
    module = importlib.import_module(f"lockstep.engines.{job.variant['framework']}_engine")
    return module.start(job)
