"""One entry point for each job, for ``ray job submit … -- python -m ray_jobs.<job> …``.

Each takes the arguments of the ``rave-dist`` command of its name and runs on the cluster that it was submitted to: Ray
sets ``RAY_ADDRESS`` for a job's driver. Recordings and store must be where every node can read them: on S3, or on a disk
that all mount under one path.
"""
