"""Processes of our own that answer requests."""

from atesd_env.processes.child import Child, ChildEndedError

__all__ = ["Child", "ChildEndedError"]
