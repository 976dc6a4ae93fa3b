"""Types that the commands share."""

import argparse
from typing import TypeAlias

from effnet.cli.flags import Parser

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"
"""object that a command's parser is added to"""
