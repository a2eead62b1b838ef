"""The only place with threads, clocks, sockets and ipyparallel.

``engine`` runs a worker inside an ipyparallel engine, ``driver`` the master inside the notebook's
process; ``session`` and ``variable`` are what a user holds, ``here`` what a continuation sees.
"""

from feliss_nb.runtime.attached import check_client
from feliss_nb.runtime.claims import begin, give_back, take
from feliss_nb.runtime.cluster import OwnCluster
from feliss_nb.runtime.events import Event, EventLog
from feliss_nb.runtime.here import Call, Here, continuation, here, needs_of
from feliss_nb.runtime.job import Job
from feliss_nb.runtime.mpiexec import check_kind
from feliss_nb.runtime.pacing import Every
from feliss_nb.runtime.record import Record
from feliss_nb.runtime.replaying import read
from feliss_nb.runtime.restoring import Place, claim_new, claim_origin, list_place
from feliss_nb.runtime.session import BaseSession, live_sessions
from feliss_nb.runtime.sessions import any_engine, can_be_resumed, clear, list_sessions
from feliss_nb.runtime.settings import Settings
from feliss_nb.runtime.status import Checkpoint, Status
from feliss_nb.runtime.table import Table
from feliss_nb.runtime.variable import Variable
from feliss_nb.runtime.waiting import check_seconds
from feliss_nb.store import Store

__all__ = [
    "BaseSession",
    "Call",
    "Checkpoint",
    "Event",
    "EventLog",
    "Every",
    "Here",
    "Job",
    "OwnCluster",
    "Place",
    "Record",
    "Settings",
    "Status",
    "Store",
    "Table",
    "Variable",
    "any_engine",
    "begin",
    "can_be_resumed",
    "check_client",
    "check_kind",
    "check_seconds",
    "claim_new",
    "claim_origin",
    "clear",
    "continuation",
    "give_back",
    "here",
    "list_place",
    "list_sessions",
    "live_sessions",
    "needs_of",
    "read",
    "take",
]
