"""The two frameworks behind one contract (`contract.Engine`); an engine knows no workload."""

import importlib

from lockstep.engines.contract import Engine, Job


def start(job: Job) -> Engine:
    """Import the framework that a job asks for and return its engine."""
    module = importlib.import_module(f"lockstep.engines.{job.variant['framework']}_engine")
    return module.start(job)
