"""Entry points of jobs, for ``ray job submit … -- python -m ray_jobs.<job> …``.

Each accepts the arguments of the corresponding ``rave-dist`` command and runs on the cluster to which it was submitted (Ray
sets ``RAY_ADDRESS`` for a job's driver). Every node must be able to read the recordings and the store: on S3, or on a disk
mounted under the same path.
"""
