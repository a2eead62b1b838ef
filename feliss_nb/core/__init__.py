"""The protocol machines, pure: events in, commands out.

No clock, random number, socket, thread or logging here: the same code runs on real engines, in the
simulator and under property tests. ``tables`` holds the transitions; ``rank`` and ``worker`` are
the machine of an engine; ``master`` is the coordinator, with its parts ``fleet`` (engines and
routes), ``ledger`` (what the notebook did: ``jobs`` with termination detection, ``variables``) and
``checkpointing`` (``checkpoints`` and their copies, by ``placement``).
"""
