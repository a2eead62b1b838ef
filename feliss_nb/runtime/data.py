"""What ranks and snapshots send to other engines, and the *data* thread that receives it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import zmq

from feliss_nb.core import messages as m
from feliss_nb.core.rank import Rank
from feliss_nb.errors import CorruptSnapshot, InternalError
from feliss_nb.runtime import wire
from feliss_nb.runtime.background import stand_back
from feliss_nb.runtime.peers import LOST, Peers
from feliss_nb.runtime.shard import join, split
from feliss_nb.state.differences import apply

if TYPE_CHECKING:
    from feliss_nb.runtime.engine import EngineWorker


class Data:
    """Gives messages their heads, and reads them.

    Parameters
    ----------
    engine : EngineWorker
        Of the ranks.
    peers : Peers
        Carries the messages.
    """

    def __init__(self, engine: EngineWorker, peers: Peers) -> None:
        self._engine, self._peers = engine, peers
        self._borrowed: dict[tuple[int, int], list[Any]] = {}  # shards in memory of others
        self._inbox = peers.bind()
        self._thread = threading.Thread(target=self._listen, name="feliss-data", daemon=True)

    def start(self) -> None:
        """Begin to receive."""
        self._thread.start()

    # ------------------------------------------------------------ sent

    def post(
        self,
        rank: Rank,
        identity: bytes,
        job: int,
        target: int,
        needs: tuple[int, ...],
        parcel: wire.Parcel,
    ) -> None:
        """Send a continuation from one rank to another, on this engine or not."""
        # A request to stop comes with the lock held. So it does not come between counting the
        # message and sending it, or between the frames of one: it is heard in rank.send or behind.
        engine = self._engine
        with engine.lock:
            if rank.state == "retired":
                return
            cut = rank.send(job, target)
            host = engine.worker.routes[target]
            if host == engine.engine:
                continuation = m.Continuation(identity, job, needs, parcel)
                here = engine.worker.deliver(rank.epoch, target, rank.rank, cut, continuation)
                engine.execute(here)
                return
            head = (
                "continuation",
                rank.epoch,
                target,
                rank.rank,
                cut,
                identity,
                job,
                needs,
                parcel.root,
                parcel.data,
                parcel.digests,
                parcel.reaches,
            )
            self._peers.send(host, head, parcel.buffers)

    def post_to_gang(
        self,
        rank: Rank,
        target: int,
        gang: int,
        step: int,
        head: tuple[Any, ...],
        buffers: Sequence[Any],
    ) -> None:
        """Send a message of a gang; the buffers do not change any more."""
        engine = self._engine
        with engine.lock:  # see `post`
            if rank.state == "retired":
                return
            host = engine.worker.routes[target]
            if host == engine.engine:
                if target in engine.runners:
                    engine.runners[target].mailbox.post(gang, step, (rank.rank, head, buffers))
                return
            inline, frames = (buffers, ()) if _is_small(buffers) else ((), buffers)
            whole = ("gang", rank.epoch, target, rank.rank, gang, step, head, inline)
            self._peers.send(host, whole, frames)

    def send_shard(self, holder: str, checkpoint: int, rank: int, shard: list[Any]) -> None:
        """Send a rank's snapshot to who will keep it."""
        self._peers.send(holder, ("shard", checkpoint, rank), shard)

    def send_difference(
        self, holder: str, checkpoint: int, rank: int, base: int, sent: list[Any]
    ) -> None:
        """Send what has changed since checkpoint `base`, which the holder has as a rule."""
        head = "difference", checkpoint, rank, base, self._engine.engine
        self._peers.send(holder, head, sent)

    def ask(self, engine: str, message: m.Want | m.Absent) -> None:
        """Ask for a snapshot, or say that there is none."""
        kind = "want" if isinstance(message, m.Want) else "absent"
        self._peers.send(engine, (kind, message.checkpoint, message.rank, message.engine))

    # ------------------------------------------------------------ received

    def _listen(self) -> None:
        inbox = self._inbox
        try:
            while self._listen_once(inbox):
                pass
        except zmq.ContextTerminated:
            return
        except BaseException as error:  # the master must hear of a bug of ours
            self._engine.trouble(error)
            raise
        finally:
            inbox.close(0)

    def _listen_once(self, inbox: zmq.Socket[bytes]) -> bool:
        """Take a message, and refer to its memory no more; False at the end."""
        message = self._peers.receive(inbox)
        if message is None:
            return False
        head, buffers = message
        if head[0] == "shard":
            self._take_shard(head, buffers)
            return True
        if head[0] == "difference":
            buffers = self._whole(head, buffers)
        with self._engine.lock:
            self._take(head, buffers)
        return True

    def _take_shard(self, head: tuple[Any, ...], frames: list[Any]) -> None:
        """Keep a snapshot, in memory of our own: it is kept for long, and may be sent again.

        A rank that waits for it stands up from where it lies now, and we copy it behind that.
        """
        key = head[1:]
        with self._engine.lock:
            if self._engine.worker.is_awaited(*key):
                self._borrowed[key] = frames
                self._take(head, frames)
                return
        frames = self._engine.fresh(frames, shared=True)
        with self._engine.lock:
            self._take(head, frames)

    def own_borrowed(self) -> None:
        """Copy what lies in memory of others, beside the ranks: they run again first."""
        if self._borrowed:
            borrowed, self._borrowed = self._borrowed, {}
            threading.Thread(
                target=self._copy, args=(borrowed,), name="feliss-own", daemon=True
            ).start()

    def _copy(self, borrowed: dict[tuple[int, int], list[Any]]) -> None:
        stand_back()
        for key, theirs in borrowed.items():
            mine = self._engine.fresh(theirs, shared=True)
            with self._engine.lock:
                self._engine.store.replace(key, theirs, mine)

    def _whole(self, head: tuple[Any, ...], frames: list[Any]) -> list[Any]:
        """Return the shard that a difference makes of the one that is here; empty if none is."""
        _, _, rank, base, _ = head
        main, channel = split(frames)
        try:
            old = split(self._engine.store.get((base, rank)))[0] if base else ()
            whole = apply(old, main, self._engine.room)
        except (KeyError, CorruptSnapshot):
            return []
        return join(whole, self._engine.fresh(channel, shared=True))

    def _take(self, head: tuple[Any, ...], buffers: list[Any]) -> None:
        engine, worker, kind = self._engine, self._engine.worker, head[0]
        if kind == "continuation":
            _, epoch, rank, source, cut, identity, job, needs, root, data, *rest = head
            digests, reaches = rest
            parcel = wire.Parcel(root, data, tuple(buffers), digests, reaches)
            continuation = m.Continuation(identity, job, needs, parcel)
            engine.execute(worker.deliver(epoch, rank, source, cut, continuation))
        elif kind == "gang":
            _, epoch, rank, source, gang, step, inner, small = head
            if epoch == worker.epoch and rank in engine.runners:
                engine.runners[rank].mailbox.post(gang, step, (source, inner, small or buffers))
        elif kind == "shard":
            _, checkpoint, rank = head
            engine.store.put((checkpoint, rank), buffers)
            engine.execute(worker.stored(checkpoint, rank))
        elif kind == "difference":
            _, checkpoint, rank, _, source = head
            if buffers:
                engine.store.put((checkpoint, rank), buffers)
                engine.execute(worker.stored(checkpoint, rank))
            else:  # it is a new holder: then the whole shard
                self.ask(source, m.Want(checkpoint, rank, engine.engine))
        elif kind == "want":
            engine.execute(worker.want(m.Want(*head[1:])))
        elif kind == LOST:
            engine.to_master(m.LinkBroken(head[1]))
        elif kind == "absent":
            engine.execute(worker.absent(m.Absent(*head[1:])))
        else:
            raise InternalError(f"a message of an unknown kind {kind!r}")

    @property
    def is_alive(self) -> bool:
        """Whether the thread uses a socket still."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Let the thread end behind the closing of the peers."""
        self._thread.join(2.0)


def _is_small(buffers: Sequence[Any]) -> bool:
    return all(type(buffer) is bytes for buffer in buffers)
