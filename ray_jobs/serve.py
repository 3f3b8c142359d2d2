"""Job: serves the published models over HTTP on the head's loopback, until the job is stopped.

``python -m ray_jobs.serve --store URI [--port 8000]``
"""

import sys

from rave_dist.__main__ import main

if __name__ == "__main__":
    main(["serve", *sys.argv[1:]])
