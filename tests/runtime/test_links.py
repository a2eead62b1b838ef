"""Who is suspected when messages do not arrive."""

from __future__ import annotations

from feliss_nb.runtime.links import BEATS, Links


def test_of_two_that_hear_nothing_of_each_other_one_is_suspected():
    links = Links()
    for engine in "012":
        links.heard(engine, 0.0)
    found = []
    for _ in range(3 * BEATS):
        found.append(links.beat("0", ("1",)))
        found.append(links.beat("1", ("0",)))
        links.beat("2", ())
    suspects = {debtor for debtor in found if debtor is not None}
    assert len(suspects) == 1
    [lost] = suspects
    links.forget(lost)
    [left] = {"0", "1"} - suspects
    links.heard(lost, 1.0)  # another one of that name
    assert [links.beat(left, ()), links.beat(lost, (left,))] == [None, None]
    assert [links.beat(left, ()) for _ in range(BEATS)] == [None] * BEATS
    assert links.beat(lost, (left,)) == left
