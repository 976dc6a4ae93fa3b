"""`python -m effnet` is `effnet`."""

import sys

from effnet.cli import main

sys.exit(main())
