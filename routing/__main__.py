"""``python -m routing`` is ``routing``."""

import sys

from routing.cli import main

sys.exit(main())
