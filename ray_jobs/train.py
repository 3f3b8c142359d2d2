"""Job: all ingested instruments are trained, as many at once as the cluster has room for, and published.

``python -m ray_jobs.train LIBRARY.yaml [--only NAME ...]``
"""

import sys

from rave_dist.__main__ import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
