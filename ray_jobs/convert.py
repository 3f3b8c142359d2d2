"""Job: converts recordings with a published model.

``python -m ray_jobs.convert --store URI --model NAME[@VERSION] INPUT... OUTPUT``
"""

import sys

from rave_dist.__main__ import main

if __name__ == "__main__":
    main(["convert", *sys.argv[1:]])
