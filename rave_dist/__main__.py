"""``python -m rave_dist``: the same command as ``rave-dist``."""

from rave_dist.cli import main

if __name__ == "__main__":
    main()
