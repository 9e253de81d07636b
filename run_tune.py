"""Tune the pretraining of a resource encoder: ``python run_tune.py --help``."""

import sys

from tuning.cli import main

if __name__ == "__main__":
    sys.exit(main())
