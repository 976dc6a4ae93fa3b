"""`python -m effnet.doctor` is `effnet doctor`, for an installation in which the command line can't be imported."""

import sys

from effnet.doctor.report import run

sys.exit(run(as_json="--json" in sys.argv[1:]))
