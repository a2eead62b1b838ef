"""What happened in a recovery, as a story. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from feliss_nb.errors import UsageError
from feliss_nb.lab.history import History, Loss, Recovery
from feliss_nb.runtime.status import human_seconds

WIDTH = 80


class Story:
    """Paragraphs that show themselves, wrapped in a terminal and as HTML in a notebook.

    Attributes
    ----------
    recovery : Recovery
        That it tells of.
    paragraphs : tuple of str
    """

    def __init__(self, recovery: Recovery, paragraphs: Iterable[str]) -> None:
        self.recovery = recovery
        self.paragraphs = tuple(paragraphs)

    def __repr__(self) -> str:
        return "\n\n".join(textwrap.fill(text, WIDTH) for text in self.paragraphs)

    def _repr_html_(self) -> str:
        import html

        return "".join(f"<p>{html.escape(text)}</p>" for text in self.paragraphs)


def explain(history: History, which: str = "last") -> Story:
    """Tell a recovery.

    Parameters
    ----------
    history : History
        Of the session.
    which : str
        ``last``, or the number of the recovery, from 1 on.

    Raises
    ------
    UsageError
        If there was none, or none of that number.
    """
    found = {str(recovery.number): recovery for recovery in history.recoveries}
    if which.lower() != "last" and not which.isdecimal():
        raise UsageError(f"explain takes last, or the number of a recovery, not {which!r}")
    if not found:
        raise UsageError(
            "there was no recovery yet: no rank has been lost. Kill one: %feliss kill 1"
        )
    if which.lower() == "last":
        return tell(history, history.recoveries[-1])
    if str(int(which)) not in found:
        raise UsageError(f"there is no recovery {which}: there were {len(found)}, from 1 on")
    return tell(history, found[str(int(which))])


def tell(history: History, recovery: Recovery) -> Story:
    """Tell a recovery in words, with the times of its parts."""
    paragraphs = [_loss(recovery, recovery.losses[0])]
    paragraphs += [_further(recovery, loss) for loss in recovery.losses[1:]]
    paragraphs.append(_back(recovery))
    paragraphs.append(_stand(recovery))
    paragraphs.append(_end(recovery))
    return Story(recovery, [text for text in paragraphs if text])


def _loss(recovery: Recovery, loss: Loss) -> str:
    ranks = _ranks(loss.ranks)
    cause = loss.cause
    if cause is None:
        text = f"At {loss.at:.2f} s the session noticed that engine {loss.engine} was gone"
        return f"{text} ({loss.why}). It hosted {ranks}, whose memory went with it."
    when = f"At {cause.at:.2f} s engine {loss.engine}, which hosted {ranks},"
    if cause.kind == "kill":
        text = f"{when} was killed: a SIGKILL, which no process can catch"
    elif cause.kind == "fault":
        text = f"{when} was harmed on purpose: {cause.data['fault']}"
    else:
        text = f"{when} was suspected ({cause.data['why']}), and killed before anything else"
    noticed = human_seconds(max(loss.at - cause.at, 0.0))
    memory = "its memory is" if len(loss.ranks) == 1 else "their memory is"
    return f"{text}. {noticed} later the session took it for lost; {memory} gone."


def _further(recovery: Recovery, loss: Loss) -> str:
    hosted = f", which hosted {_ranks(loss.ranks)}" if loss.ranks else ""
    return (
        f"While it recovered, at {loss.at:.2f} s, engine {loss.engine}{hosted}, was lost too "
        f"({loss.why}). The recovery began anew, with the engines that were left."
    )


def _back(recovery: Recovery) -> str:
    if not recovery.routes:
        return ""
    if recovery.taken is None:
        where = "the start of the session, where every pool was empty"
        if recovery.checkpoint:
            where = f"checkpoint {recovery.checkpoint}, which an earlier session had taken"
        text = f"No checkpoint had been taken since, so every rank went back to {where}"
    else:
        ago = human_seconds(max(recovery.begun - recovery.taken, 0.0))
        text = (
            f"A rank alone cannot go back, since the others know its messages: every rank went "
            f"back to checkpoint {recovery.checkpoint}, which had been committed {ago} before. "
            "What they did since then was done again, each message and submission once"
        )
    return text + "."


def _stand(recovery: Recovery) -> str:
    moved: dict[str, list[int]] = {}
    for loss in recovery.losses:
        for rank in loss.ranks:
            engine = recovery.routes.get(rank)
            if engine is not None and engine != loss.engine:
                moved.setdefault(engine, []).append(rank)
    parts = []
    for engine, ranks in moved.items():
        who = f"engine {engine}, a spare," if engine in recovery.spares else f"engine {engine}"
        part = f"{who} took {_ranks(sorted(set(ranks)))} over"
        sources = sorted({recovery.read_from[r] for r in ranks if r in recovery.read_from})
        if sources:
            word = "engine" if len(sources) == 1 else "engines"
            part += f" and read the snapshot from {word} {', '.join(sources)}, which kept a copy"
        elif recovery.taken is not None:
            part += ", of whose snapshot it kept a copy itself"
        parts.append(part)
    if not parts:
        return ""
    text = "; ".join(parts)
    others = len(recovery.routes) - len({r for ranks in moved.values() for r in ranks})
    rest = ""
    if others:
        rest = ". The other ranks stayed where they were"
        rest += ", and read their own" if recovery.taken is not None else ""
    return text[0].upper() + text[1:] + rest + "."


def _end(recovery: Recovery) -> str:
    if recovery.ended is None:
        return "It has not ended yet."
    total = human_seconds(recovery.ended - recovery.begun)
    text = f"{total} after the loss every rank ran again, in epoch {recovery.epoch}"
    if recovery.load is not None and recovery.resume is not None:
        text += (
            f": {human_seconds(recovery.detection)} to notice, {human_seconds(recovery.load)} to "
            f"stand up from snapshots, {human_seconds(recovery.resume)} to resume"
        )
    text += ". Messages of the old epoch are dropped wherever they come late."
    if recovery.protected is not None:
        later = human_seconds(max(recovery.protected - recovery.ended, 0.0))
        text += f" {later} later every snapshot had its copies again."
    for at, engine in recovery.joined:
        later = human_seconds(max(at - recovery.begun, 0.0))
        text += f" Engine {engine} joined {later} after the loss, as a spare."
    return text


def _ranks(ranks: Iterable[int]) -> str:
    found = [str(rank) for rank in ranks]
    if not found:
        return "no rank"
    if len(found) == 1:
        return f"rank {found[0]}"
    return f"ranks {', '.join(found[:-1])} and {found[-1]}"
