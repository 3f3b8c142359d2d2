"""Job: converts recordings to datasets.

``python -m ray_jobs.ingest LIBRARY.yaml [--only NAME ...]``
"""

import sys

from rave_dist.__main__ import main

if __name__ == "__main__":
    main(["ingest", *sys.argv[1:]])
