"""`python -m benchmarks survival`."""

import argparse
from pathlib import Path

from effnet.cli.flags import Commands


def add_survival(commands: Commands) -> None:
    """Add `python -m benchmarks survival`."""
    parser = commands.add_parser(
        "survival", help="kill and resume training runs, and compare them with an uninterrupted one"
    )
    parser.add_argument("folder", metavar="DIR", help="folder for data and workspaces")
    parser.add_argument("--out", required=True, metavar="FILE", help="JSON file for the figures")
    parser.add_argument("--kills", type=int, default=30, help="of the first scenario [default: 30]")
    parser.add_argument("--others", type=int, default=5, help="of each other scenario [default: 5]")
    parser.add_argument("--seed", type=int, default=0, help="of moments and victims [default: 0]")
    parser.set_defaults(command=_run)


def _run(namespace: argparse.Namespace) -> int:
    import json

    from benchmarks.survival import Survival, scenarios, summary
    from effnet.runtime.files import write_text

    folder, results = Path(namespace.folder), []
    for index, scenario in enumerate(scenarios(folder)):
        number = namespace.others if index else namespace.kills
        if not number:
            continue
        kills = []
        for kill in Survival(scenario, folder, namespace.seed).kills(number):
            kills.append(kill)
            print(f"{scenario.name}: {kill}", flush=True)
        results.append(summary(scenario, kills))
        write_text(Path(namespace.out), json.dumps(results, indent=1) + "\n")
    return 0 if all(result["identical"] == result["kills"] for result in results) else 1
