"""Groups: ordered sets of ranks, and their algebra."""
# ruff: noqa: N802  mpi4py's names

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from feliss_nb.models.mpi import constants
from feliss_nb.models.mpi.failures import MPIError
from feliss_nb.models.mpi.missing import Checked


class Group(Checked):
    """Ranks of the gang, in an order of its own.

    Parameters
    ----------
    members : sequence of int
        Ranks in the gang.
    me : int, optional
        This rank in the gang; None where it is nobody's, as in ``GROUP_NULL``.

    Attributes
    ----------
    members : tuple of int
    """

    def __init__(self, members: Sequence[int] = (), me: int | None = None) -> None:
        self.members = tuple(members)
        self.me = me
        self._places = {member: place for place, member in enumerate(self.members)}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Group):
            return NotImplemented
        if self is GROUP_NULL or other is GROUP_NULL:
            return self is other
        return self.members == other.members

    def __hash__(self) -> int:
        return hash(self.members)

    def __bool__(self) -> bool:
        return self is not GROUP_NULL

    def __repr__(self) -> str:
        return f"<MPI group of {len(self.members)}>"

    def place(self, member: int) -> int:
        """Give the rank here of a rank of the gang, or ``UNDEFINED``."""
        return self._places.get(member, constants.UNDEFINED)

    def Get_size(self) -> int:
        """Count the members."""
        return len(self.members)

    def Get_rank(self) -> int:
        """Give this rank's place, or ``UNDEFINED``."""
        return constants.UNDEFINED if self.me is None else self.place(self.me)

    @property
    def size(self) -> int:
        """Number of members."""
        return len(self.members)

    @property
    def rank(self) -> int:
        """This rank's place, or ``UNDEFINED``."""
        return self.Get_rank()

    def _made(self, members: Sequence[int]) -> Group:
        return Group(members, self.me)

    def Incl(self, ranks: Sequence[int]) -> Group:
        """Take these, in this order."""
        return self._made([self.members[rank] for rank in self._checked(ranks)])

    def Excl(self, ranks: Sequence[int]) -> Group:
        """Take all but these."""
        gone = set(self._checked(ranks))
        return self._made([m for place, m in enumerate(self.members) if place not in gone])

    def Range_incl(self, ranks: Sequence[tuple[int, int, int]]) -> Group:
        """Take ranges of first, last and stride."""
        return self.Incl(_expand(ranks))

    def Range_excl(self, ranks: Sequence[tuple[int, int, int]]) -> Group:
        """Take all but ranges of first, last and stride."""
        return self.Excl(_expand(ranks))

    def _checked(self, ranks: Sequence[int]) -> list[int]:
        wanted = [int(rank) for rank in ranks]
        wrong = [rank for rank in wanted if not 0 <= rank < self.size]
        if wrong or len(set(wanted)) != len(wanted):
            raise MPIError(constants.ERR_RANK, f"{wanted} in a group of {self.size}")
        return wanted

    def Translate_ranks(
        self, ranks: Sequence[int] | None = None, group: Group | None = None
    ) -> list[int]:
        """Give the ranks in another group of these ranks, ``UNDEFINED`` for who is not in it."""
        wanted = range(self.size) if ranks is None else ranks
        other = self if group is None else group
        for rank in wanted:
            if rank != constants.PROC_NULL and not 0 <= rank < self.size:
                raise MPIError(constants.ERR_RANK, f"{rank} in a group of {self.size}")
        return [
            rank if rank == constants.PROC_NULL else other.place(self.members[rank])
            for rank in wanted
        ]

    def Compare(self, group: Group) -> int:
        """Give ``IDENT``, ``SIMILAR`` (in another order) or ``UNEQUAL``."""
        if self.members == group.members:
            return constants.IDENT
        same = set(self.members) == set(group.members)
        return constants.SIMILAR if same else constants.UNEQUAL

    @classmethod
    def Union(cls, group1: Group, group2: Group) -> Group:
        """Take the first's members, then those of the second that are not in it."""
        rest = [member for member in group2.members if member not in group1._places]
        return Group([*group1.members, *rest], _me(group1, group2))

    @classmethod
    def Intersection(cls, group1: Group, group2: Group) -> Group:
        """Take the first's members that are in the second."""
        both = [member for member in group1.members if member in group2._places]
        return Group(both, _me(group1, group2))

    @classmethod
    def Difference(cls, group1: Group, group2: Group) -> Group:
        """Take the first's members that are not in the second."""
        rest = [member for member in group1.members if member not in group2._places]
        return Group(rest, _me(group1, group2))

    Intersect = Intersection

    def Dup(self) -> Group:
        """Give an equal group."""
        return self._made(self.members)

    def Free(self) -> None:
        """Nothing to do; for the sake of programs that have to."""

    free = Free


GROUP_NULL: Final = Group()
GROUP_EMPTY: Final = Group()


def _me(group1: Group, group2: Group) -> int | None:
    return group1.me if group1.me is not None else group2.me


def _expand(ranges: Sequence[tuple[int, int, int]]) -> list[int]:
    ranks: list[int] = []
    for first, last, stride in ranges:
        if not stride:
            raise MPIError(constants.ERR_ARG, "a stride of 0")
        ranks += range(first, last + (1 if stride > 0 else -1), stride)
    return ranks
