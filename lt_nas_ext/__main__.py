"""`python -m lt_nas_ext` is `lt-nas`."""

from __future__ import annotations

import sys

from lt_nas_ext.cli import main

sys.exit(main())
