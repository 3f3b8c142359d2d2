"""Job: checks, ingests, trains, publishes and reports a library.

``python -m ray_jobs.run_library LIBRARY.yaml [--only NAME ...]``
"""

import sys

from rave_dist.__main__ import main

if __name__ == "__main__":
    main(["run", *sys.argv[1:]])
