"""Memory of small objects in huge pages. In a process of its own: it is about all of its memory."""

import subprocess
import sys

import pytest

PROGRAM = """

from feliss_nb.runtime import huge_pages

def huge():
    with open("/proc/self/smaps_rollup") as lines:
        [found] = [line.split()[1] for line in lines if line.startswith("AnonHugePages:")]
    return int(found) << 10

kept = {n: str(n) for n in range(500_000)}
before = huge()
assert huge_pages.gather(lambda: True) == 0  # it is over
done = huge_pages.gather(lambda: False)
assert all(kept[n] == str(n) for n in range(500_000))
print(done, huge() - before)
"""


def test_small_objects_come_to_lie_in_huge_pages_and_stay_what_they_are():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    said, seen = map(int, done.stdout.split())
    if not said:
        pytest.skip("this kernel does not put pages together on request")
    assert seen > 0.5 * said > 10e6
