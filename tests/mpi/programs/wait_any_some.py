"""Requests completed as they come: waitany, waitsome, testall, and a receive taken back."""

from mpi4py import MPI

comm = MPI.COMM_WORLD
if comm.rank == 0:
    requests = [comm.irecv(source=s, tag=0) for s in range(1, comm.size)]
    got = {}
    while True:
        index, value = MPI.Request.waitany(requests)
        if index == MPI.UNDEFINED:
            break
        got[index] = value
    print(sorted(got.items()))
    requests = [comm.irecv(source=s, tag=1) for s in range(1, comm.size)]
    some = []
    while True:
        indices, values = MPI.Request.waitsome(requests)
        if indices is None:
            break
        some += list(zip(indices, values))
    print(sorted(some))
    requests = [comm.irecv(source=s, tag=2) for s in range(1, comm.size)]
    done, values = False, None
    while not done:
        done, values = MPI.Request.testall(requests)
    print(values)
    useless = comm.irecv(source=1, tag=77)
    useless.Cancel()
    status = MPI.Status()
    useless.Wait(status)
    print("cancelled", status.Is_cancelled())
else:
    for tag in range(3):
        comm.isend((comm.rank, tag), dest=0, tag=tag).wait()
