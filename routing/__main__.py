"""``python -m routing`` is ``routing``."""

import sys

from routing.config.plugins import leave_current_folder

leave_current_folder()  # a file of the user's there must not stand in for a library

from routing.cli import main  # noqa: E402

sys.exit(main())
