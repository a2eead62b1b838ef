"""What mpi4py has and this communicator has not: the documentation's list, and the errors."""

from __future__ import annotations

from typing import Any, Final

from feliss_nb.models.mpi.failures import MissingError

_FILES = "files are read and written through the session or by Python itself"
_WINDOWS = "one-sided communication: memory of another rank is reached by messages only"
_DYNAMIC = "ranks are made by the session; a gang has all of them from its start"
_INTER = "intercommunicators"
_GRAPHS = "graph topologies and neighbourhood collectives; Cartesian ones have Shift and Sub"
_HANDLES = "handles of a C library, which is not there"
_FAULTS = "a lost rank never shows inside a gang: the whole gang runs anew from its start"
_TYPES = "not one of the layouts that are supported"
_INFO = "hints to a C library"
_PARTS = "partitioned messages"
_GENERAL = "requests that the program completes itself, and lists of requests looked at"
_SESSIONS = "sessions and process sets of MPI 4"
_EXTERNAL = "external representations; pickle, or send the array"
_KEYS = "attributes with callbacks"
_PICKLE = "pickling is the package's own, so that every object is saved as its checkpoints save it"
_CODES = "error classes and error handlers of the program's own"

_C_HANDLES = "f2py fromhandle fromint handle py2f toint"


def _table(*rows: tuple[str, str]) -> dict[str, str]:
    return {name: reason for reason, names in rows for name in names.split()}


#: For each class of mpi4py (and for the module itself, ``MPI``): the names that are left out, and
#: why.
NOT_IMPLEMENTED: Final[dict[str, dict[str, str]]] = {
    "MPI": _table(
        (
            _FILES,
            "File FILE_NULL MODE_APPEND MODE_CREATE MODE_DELETE_ON_CLOSE MODE_EXCL MODE_RDONLY "
            "MODE_RDWR MODE_SEQUENTIAL MODE_UNIQUE_OPEN MODE_WRONLY SEEK_CUR SEEK_END SEEK_SET "
            "DISPLACEMENT_CURRENT DISP_CUR Register_datarep MAX_DATAREP_STRING ERR_ACCESS "
            "ERR_AMODE ERR_BAD_FILE ERR_CONVERSION ERR_DUP_DATAREP ERR_FILE ERR_FILE_EXISTS "
            "ERR_FILE_IN_USE ERR_IO ERR_NOT_SAME ERR_NO_SPACE ERR_NO_SUCH_FILE ERR_QUOTA "
            "ERR_READ_ONLY ERR_UNSUPPORTED_DATAREP",
        ),
        (
            _WINDOWS,
            "Win WIN_NULL WIN_BASE WIN_CREATE_FLAVOR WIN_DISP_UNIT WIN_FLAVOR WIN_FLAVOR_ALLOCATE "
            "WIN_FLAVOR_CREATE WIN_FLAVOR_DYNAMIC WIN_FLAVOR_SHARED WIN_MODEL WIN_SEPARATE "
            "WIN_SIZE WIN_UNIFIED LOCK_EXCLUSIVE LOCK_SHARED MODE_NOCHECK MODE_NOPRECEDE "
            "MODE_NOPUT MODE_NOSTORE MODE_NOSUCCEED Aint_add Aint_diff ERR_ASSERT ERR_BASE "
            "ERR_DISP ERR_LOCKTYPE ERR_RMA_ATTACH ERR_RMA_CONFLICT ERR_RMA_FLAVOR ERR_RMA_RANGE "
            "ERR_RMA_SHARED ERR_RMA_SYNC ERR_SIZE ERR_WIN",
        ),
        (
            _DYNAMIC,
            "Open_port Close_port Publish_name Unpublish_name Lookup_name MAX_PORT_NAME ERR_NAME "
            "ERR_PORT ERR_SERVICE ERR_SPAWN",
        ),
        (_INTER, "Intercomm"),
        (_GRAPHS, "Graphcomm Distgraphcomm UNWEIGHTED WEIGHTS_EMPTY"),
        (_GENERAL, "Grequest"),
        (_SESSIONS, "Session SESSION_NULL ERR_SESSION MAX_PSET_NAME_LEN MAX_STRINGTAG_LEN"),
        (
            _INFO,
            "Info MAX_INFO_KEY MAX_INFO_VAL ERR_INFO ERR_INFO_KEY ERR_INFO_NOKEY ERR_INFO_VALUE "
            "COMM_TYPE_HW_GUIDED COMM_TYPE_HW_UNGUIDED COMM_TYPE_RESOURCE_GUIDED "
            "Get_hw_resource_info",
        ),
        (
            _CODES,
            "Add_error_class Add_error_code Add_error_string Remove_error_class "
            "Remove_error_code Remove_error_string Errhandler ERRHANDLER_NULL ERR_ERRHANDLER",
        ),
        (_PICKLE, "Pickle pickle"),
        (
            _HANDLES,
            "F_ERROR F_SOURCE F_STATUS_SIZE F_TAG Get_abi_fortran_info Get_abi_info "
            "Get_abi_version ERR_ABI ERR_VALUE_TOO_LARGE Flush_buffer Iflush_buffer",
        ),
        (
            _TYPES,
            "BFLOAT16_T COMPLEX4 INTEGER16 LOGICAL1 LOGICAL16 LOGICAL2 LOGICAL4 LOGICAL8 REAL2 "
            "BUFFER_AUTOMATIC BottomType BufferAutomaticType InPlaceType COMBINER_CONTIGUOUS "
            "COMBINER_DARRAY COMBINER_DUP COMBINER_F90_COMPLEX COMBINER_F90_INTEGER "
            "COMBINER_F90_REAL COMBINER_HINDEXED COMBINER_HINDEXED_BLOCK COMBINER_HVECTOR "
            "COMBINER_INDEXED COMBINER_INDEXED_BLOCK COMBINER_NAMED COMBINER_RESIZED "
            "COMBINER_STRUCT COMBINER_SUBARRAY COMBINER_VALUE_INDEX COMBINER_VECTOR "
            "DISTRIBUTE_BLOCK DISTRIBUTE_CYCLIC DISTRIBUTE_DFLT_DARG DISTRIBUTE_NONE "
            "TYPECLASS_COMPLEX TYPECLASS_INTEGER TYPECLASS_LOGICAL TYPECLASS_REAL",
        ),
    ),
    "Comm": _table(
        (_FAULTS, "Ack_failed Agree Get_failed Iagree Is_revoked Ishrink Revoke Shrink"),
        (_CODES, "Call_errhandler Create_errhandler Get_errhandler"),
        (_KEYS, "Create_keyval Free_keyval"),
        (_INFO, "Get_info Set_info info Idup_with_info"),
        (_DYNAMIC, "Get_parent Join"),
        (_PARTS, "Precv_init Psend_init"),
        (_HANDLES, f"Flush_buffer Iflush_buffer {_C_HANDLES}"),
    ),
    "Intracomm": _table(
        (_DYNAMIC, "Accept Connect Spawn Spawn_multiple"),
        (_INTER, "Create_intercomm"),
        (
            _GRAPHS,
            "Create_graph Create_dist_graph Create_dist_graph_adjacent Graph_map Cart_map",
        ),
        (_SESSIONS, "Create_from_group"),
    ),
    "Topocomm": _table(
        (
            _GRAPHS,
            "Ineighbor_allgather Ineighbor_allgatherv Ineighbor_alltoall Ineighbor_alltoallv "
            "Ineighbor_alltoallw Neighbor_allgather Neighbor_allgather_init Neighbor_allgatherv "
            "Neighbor_allgatherv_init Neighbor_alltoall Neighbor_alltoall_init "
            "Neighbor_alltoallv Neighbor_alltoallv_init Neighbor_alltoallw "
            "Neighbor_alltoallw_init neighbor_allgather neighbor_alltoall degrees indegree "
            "inedges inoutedges outdegree outedges",
        ),
    ),
    "Group": _table((_SESSIONS, "Create_from_session_pset"), (_HANDLES, _C_HANDLES)),
    "Request": _table(
        (
            _GENERAL,
            "Get_status_all Get_status_any Get_status_some get_status_all get_status_any "
            "get_status_some",
        ),
        (_HANDLES, _C_HANDLES),
    ),
    "Prequest": _table((_PARTS, "Parrived Pready Pready_list Pready_range")),
    "Status": _table((_HANDLES, "f2py py2f tomemory")),
    "Message": _table((_HANDLES, f"free {_C_HANDLES}")),
    "Op": _table((_HANDLES, f"free {_C_HANDLES}")),
    "Datatype": _table(
        (
            _TYPES,
            "Create_darray Create_f90_complex Create_f90_integer Create_f90_real Match_size "
            "Get_contents Get_envelope Get_value_index Resized combiner contents decode envelope",
        ),
        (_KEYS, "Create_keyval Free_keyval Delete_attr Get_attr Set_attr"),
        (_EXTERNAL, "Pack Pack_size Unpack Pack_external Pack_external_size Unpack_external"),
        (_HANDLES, f"free {_C_HANDLES}"),
    ),
}


class _Checked(type):
    def __getattr__(cls, name: str) -> Any:
        raise _error(cls, name)


class Checked(metaclass=_Checked):
    """A class of mpi4py, whose missing names say so."""

    def __getattr__(self, name: str) -> Any:
        raise _error(type(self), name)


def _error(cls: type, name: str) -> AttributeError:
    for base in cls.__mro__:
        reason = NOT_IMPLEMENTED.get(base.__name__, {}).get(name)
        if reason:
            return MissingError(f"MPI.{base.__name__}.{name} is not implemented: {reason}")
    return AttributeError(f"MPI.{cls.__name__} has no attribute {name!r}")


def module_attribute(name: str) -> Any:
    """Raise the error for a name that ``MPI`` has not."""
    reason = NOT_IMPLEMENTED["MPI"].get(name)
    if reason:
        raise MissingError(f"MPI.{name} is not implemented: {reason}")
    raise AttributeError(f"MPI has no attribute {name!r}")
