"""Ready programs over the models: LU, conjugate gradients, Cannon's product, heat, LSA.

Each has a kernel, a function of an mpi4py-style communicator and plain arrays that also runs under
plain mpi4py (``lu.factor(MPI.COMM_WORLD, rows)``), and an entry over a session
(``lu.factorize(session, a)``). A matrix lies in *row shares*: a rank's rows follow those of the
rank before it, as ``session.scatter(matrix)`` lays them.

``lu``
    LU factorization with partial pivoting, 2-D block-cyclic
``cg``
    preconditioned conjugate gradients on CSR
``cannon``
    Cannon's matrix product
``heat``
    the 2-D heat equation with halo exchange
``lsa``
    latent semantic analysis: TF-IDF by MapReduce, truncated SVD by SPMD
``steps``
    programs in steps, between which a checkpoint can stand
"""

try:
    import scipy.linalg.blas
    import scipy.sparse  # noqa: F401
    import threadpoolctl  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"feliss_nb.algorithms needs {error.name}; install what they all need with "
        "pip install 'feliss_nb[algorithms]', for the engines as well"
    ) from error
