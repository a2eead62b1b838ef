"""Rank 0 hands out tasks to whoever is free, by tags."""

from mpi4py import MPI

WORK, STOP = 1, 2
comm = MPI.COMM_WORLD
if comm.rank == 0:
    tasks = list(range(25))
    results = {}
    status = MPI.Status()
    busy = 0
    for worker in range(1, comm.size):
        comm.send(tasks.pop(), dest=worker, tag=WORK)
        busy += 1
    while busy:
        task, value = comm.recv(source=MPI.ANY_SOURCE, tag=MPI.ANY_TAG, status=status)
        results[task] = value
        if tasks:
            comm.send(tasks.pop(), dest=status.Get_source(), tag=WORK)
        else:
            comm.send(None, dest=status.Get_source(), tag=STOP)
            busy -= 1
    print(sorted(results.items()))
else:
    status = MPI.Status()
    while True:
        task = comm.recv(source=0, tag=MPI.ANY_TAG, status=status)
        if status.Get_tag() == STOP:
            break
        comm.send((task, task**2), dest=0, tag=WORK)
