"""A grid, one dimension a ring: neighbours, coordinates, and what they send."""

from mpi4py import MPI

comm = MPI.COMM_WORLD
dims = MPI.Compute_dims(comm.size, 2)
grid = comm.Create_cart(dims, periods=[True, False], reorder=False)
north, south = grid.Shift(0, 1)
west, east = grid.Shift(1, 1)
got = grid.sendrecv(grid.coords, dest=south, source=north)
also = grid.sendrecv(grid.coords, dest=east, source=west)
rows = grid.Sub([False, True])
total = rows.allreduce(grid.rank)
print(grid.rank, dims, grid.coords, got, also, rows.rank, rows.size, total, grid.Get_topo())
grid.Free()
