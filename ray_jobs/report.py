"""Job: writes a library's page from the present contents of the store.

``python -m ray_jobs.report LIBRARY.yaml``
"""

import sys

from rave_dist.__main__ import main

if __name__ == "__main__":
    main(["report", *sys.argv[1:]])
