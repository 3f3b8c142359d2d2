"""Job: trains all ingested instruments, as many at once as the cluster allows, and publishes them.

``python -m ray_jobs.train LIBRARY.yaml [--only NAME ...]``
"""

import sys

from rave_dist.__main__ import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
