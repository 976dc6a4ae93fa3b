"""Trackers of experiments, one file each.

A new one is a module here that makes a `TRACKER`, and its name in `effnet.recipe.choices.TrackerName`.
"""

from effnet.recipe.choices import TrackerName
from effnet.runtime.registry import ModuleRegistry
from effnet.training.trackers.form import Connection, TrackedRun, Tracker

__all__ = ["TRACKERS", "Connection", "TrackedRun", "Tracker"]

TRACKERS: ModuleRegistry[Tracker] = ModuleRegistry(TrackerName, __name__, "TRACKER")
"""the registry, by the value of ``--track``"""
