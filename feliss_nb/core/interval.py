"""How much work to do from one checkpoint to the next.

Failures come at random with a mean time `mtbf` between them, a checkpoint takes `cost` from the
work, and after a failure the work since the last checkpoint is done again. All times in one unit.
`mtbf` is that of everything which a failure would throw back: of N engines it is one N-th of an
engine's. `cost` is the time by which a checkpoint delays the work: what is copied or written
meanwhile counts only as far as it slows the work down.

Sources
-------
Young: J. W. Young, "A first order approximation to the optimum checkpoint interval",
Communications of the ACM 17(9), 1974, pages 530-531.

Daly: J. T. Daly, "A higher order estimate of the optimum checkpoint interval for restart dumps",
Future Generation Computer Systems 22(3), 2006, pages 303-312.

Du: Y. Du, L. Marchal, G. Pallez, Y. Robert, "Robustness of the Young/Daly formula for stochastic
iterative applications", ICPP 2020 (hal-02514107 is the research report).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence

from feliss_nb.errors import UsageError

__all__ = ["Interval", "daly", "exact", "iterations", "overhead", "threshold", "young"]


def young(cost: float, mtbf: float) -> float:
    """Work between two checkpoints, to first order: ``sqrt(2 cost mtbf)``.

    Source: Young, the closing formula. Good while it comes out much shorter than `mtbf`.
    """
    _check(cost, mtbf)
    return math.sqrt(2 * cost * mtbf)


def daly(cost: float, mtbf: float) -> float:
    """Work between two checkpoints, to a higher order.

    With ``x = cost / (2 mtbf)``: ``sqrt(2 cost mtbf) (1 + sqrt(x) / 3 + x / 9) - cost``, and
    ``mtbf`` where a checkpoint costs twice that or more. Source: Daly, equation 37.
    """
    _check(cost, mtbf)
    x = cost / (2 * mtbf)
    if x >= 1:
        return mtbf
    return math.sqrt(2 * cost * mtbf) * (1 + math.sqrt(x) / 3 + x / 9) - cost


def exact(cost: float, mtbf: float) -> float:
    """Work between two checkpoints that makes `overhead` least.

    Its derivative is zero where ``1 - w / mtbf = exp(-(w + cost) / mtbf)``; Daly's estimate is an
    expansion of that root, which Newton's method finds in a few steps.
    """
    _check(cost, mtbf)
    if cost == 0:
        return 0.0
    c = cost / mtbf
    # Convex and growing, and positive at 1: from there the steps come down and do not overshoot.
    x = 1.0
    for _ in range(100):
        step = (x + math.expm1(-(x + c))) / -math.expm1(-(x + c))
        x -= step
        if abs(step) <= 1e-12 * x:
            break
    return x * mtbf


def overhead(work: float, cost: float, mtbf: float, recovery: float = 0.0) -> float:
    """Predicted time that is not work, as a part of the work, without bound for `work` near 0.

    ``mtbf exp(recovery / mtbf) (exp((work + cost) / mtbf) - 1) / work - 1``: failures may strike
    during checkpoints and recoveries too. Source: Daly's complete cost function, for failures with
    an exponential distribution.

    Parameters
    ----------
    work : float
        Between two checkpoints.
    cost, mtbf : float
    recovery : float
        From a failure until the work goes on from its checkpoint. It moves the overhead and not
        its minimum.
    """
    _check(cost, mtbf)
    if not work > 0:
        return math.inf
    try:
        return mtbf * math.exp(recovery / mtbf) * math.expm1((work + cost) / mtbf) / work - 1
    except OverflowError:
        return math.inf


def iterations(lengths: float | Sequence[float], cost: float, mtbf: float) -> int:
    """After how many iterations to take a checkpoint, when it can be taken at their ends only.

    Source: Du, static strategies. Iterations of independent lengths X act as if each took
    ``mtbf log E[exp(X / mtbf)]``; of the whole numbers beside the optimum the better one is taken.

    Parameters
    ----------
    lengths : float or sequence of float
        Of an iteration; or of several, as a sample.
    cost, mtbf : float
    """
    sample = _sample(lengths)
    long = max(sample)
    # exp of the differences: none of them overflows
    acts_as = long + mtbf * math.log(_mean(math.exp((x - long) / mtbf) for x in sample))
    best = exact(cost, mtbf) / acts_as
    few = max(1, math.floor(best))
    return min((few, few + 1), key=lambda k: (overhead(k * acts_as, cost, mtbf), k))


def threshold(lengths: float | Sequence[float], cost: float, mtbf: float) -> float:
    """The work from which on the next end of an iteration, or of a continuation, is a checkpoint.

    Stopping at the end at hand, after work w, is better than at the next one as soon as
    ``w (w + m) >= P**2``, with P the work between checkpoints that could be anywhere and
    ``m = E[X**2] / E[X]``: of equal iterations their length, otherwise that of the one in which a
    random moment falls. That is the comparison ``cost / w + w / (2 mtbf)`` with the same for
    ``w + m``. To first order it gives ``P - m / 2``: the checkpoint comes half an iteration late on
    average, so it is aimed at that much too early.

    Source: Du, dynamic strategies (a threshold W_th, which is P to first order).

    Parameters
    ----------
    lengths : float or sequence of float
        Of a continuation; or of several, as a sample.
    cost, mtbf : float
    """
    sample = _sample(lengths)
    m = _mean(x * x for x in sample) / _mean(sample)
    return math.hypot(exact(cost, mtbf), m / 2) - m / 2


class Interval:
    """Chooses when the next checkpoint is due, from what was measured so far. It has no clock.

    Parameters
    ----------
    mtbf : float, optional
        Mean time between failures, where it is known. Otherwise it is estimated: n failures in
        a time T give ``T / (n + 1/2)`` (Jeffreys's prior for a Poisson rate), so that the interval
        grows while nothing fails.
    first : float
        The interval before anything was measured.
    least, most : float
        Bounds of every interval.
    window : int
        How many of the last costs and lengths count. Their median stands for the cost: one
        checkpoint that met a busy disk does not move it.
    """

    def __init__(
        self,
        mtbf: float | None = None,
        first: float = 60.0,
        least: float = 0.0,
        most: float = math.inf,
        window: int = 9,
    ) -> None:
        if mtbf is not None:
            _check(0, mtbf)
        if not 0 <= least <= most or not first > 0 or window < 1:
            raise UsageError(
                f"an interval needs 0 <= least <= most, first > 0 and window >= 1, not least="
                f"{least}, most={most}, first={first}, window={window}"
            )
        self.given, self.first, self.least, self.most = mtbf, first, least, most
        self.failures = 0
        self.observed = 0.0
        self._costs: deque[float] = deque(maxlen=window)
        # One long continuation among many short ones matters: more of them count.
        self._lengths: deque[float] = deque(maxlen=50 * window)

    def ran(self, seconds: float) -> None:
        """Note time in which a failure could have struck."""
        self.observed += seconds

    def failed(self) -> None:
        """Note a failure."""
        self.failures += 1

    def checkpoint_took(self, seconds: float) -> None:
        """Note by how much a checkpoint delayed the work."""
        self._costs.append(seconds)

    def continuation_took(self, seconds: float) -> None:
        """Note the length of a piece of work at whose end only a checkpoint can be taken."""
        self._lengths.append(seconds)

    @property
    def cost(self) -> float | None:
        """The cost of a checkpoint; None before the first."""
        costs, middle = sorted(self._costs), len(self._costs) // 2
        if not costs:
            return None
        return costs[middle] if len(costs) % 2 else (costs[middle - 1] + costs[middle]) / 2

    @property
    def mtbf(self) -> float | None:
        """The mean time between failures; None before anything ran."""
        if self.given is not None:
            return self.given
        return self.observed / (self.failures + 0.5) if self.observed > 0 else None

    def work(self) -> float:
        """How much work to do between two checkpoints that could be anywhere."""
        cost, mtbf = self.cost, self.mtbf
        if cost is None or mtbf is None:
            return self._bound(self.first)
        return self._bound(exact(cost, mtbf))

    def due_after(self) -> float:
        """The work from which on the next end of a continuation is a checkpoint."""
        cost, mtbf = self.cost, self.mtbf
        if cost is None or mtbf is None or not any(self._lengths):
            return self.work()
        return self._bound(threshold(self._lengths, cost, mtbf))

    def is_due(self, work: float) -> bool:
        """Whether to take a checkpoint here, at the end of a continuation.

        Parameters
        ----------
        work : float
            Since the last checkpoint.
        """
        return work > 0 and work >= self.due_after()

    def predicted(self, recovery: float = 0.0) -> float | None:
        """The overhead to expect of the interval chosen; None before anything was measured."""
        cost, mtbf = self.cost, self.mtbf
        if cost is None or mtbf is None:
            return None
        due = self.due_after()
        segments: list[float] = []
        work = 0.0
        for length in self._lengths:
            work += length
            if work >= due:
                segments.append(work)
                work = 0.0
        if len(segments) < 20:
            # Continuations that are short against the interval, or too few to count by: on
            # average half of the one that is at hand comes on top.
            total = sum(self._lengths)
            late = sum(x * x for x in self._lengths) / total / 2 if total else 0.0
            return overhead(due + late, cost, mtbf, recovery)
        # Segments of several lengths cost more than those of their mean.
        spent = sum(work * overhead(work, cost, mtbf, recovery) for work in segments)
        return spent / sum(segments)

    def _bound(self, work: float) -> float:
        return min(max(work, self.least), self.most)


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return math.fsum(found) / len(found)


def _sample(lengths: float | Sequence[float]) -> Sequence[float]:
    sample = [lengths] if isinstance(lengths, int | float) else lengths
    if not sample or not min(sample) >= 0 or not max(sample) > 0:
        raise UsageError("lengths of iterations are 0 or more, and one of them is more")
    return sample


def _check(cost: float, mtbf: float) -> None:
    if not (cost >= 0 and mtbf > 0 and math.isfinite(cost) and math.isfinite(mtbf)):
        raise UsageError(
            "a checkpoint costs 0 seconds or more, and between failures is a time of more than 0; "
            f"not {cost} and {mtbf}"
        )
