"""Fault plans: what shall go wrong, to whom, and when.

A plan is data. `Session.inject` carries it out on real engines, the simulator in its fake world.
"""

from feliss_nb.faults.plan import KINDS, PHASES, Fault, FaultPlan, victims

__all__ = ["KINDS", "PHASES", "Fault", "FaultPlan", "victims"]
