"""All benchmarks of the server, one after the other, or those that are named."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from bench.serving import command, front_ends, governor_cost, peers, shared_memory, soak, throughput, wire

BENCHMARKS = {
    "wire": wire.run,
    "shared-memory": shared_memory.run,
    "throughput": throughput.run,
    "peers": peers.run,
    "front-ends": front_ends.run,
    "governor": governor_cost.run,
    "soak": soak.run,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run them; return 0 when all could be measured."""
    parser = argparse.ArgumentParser(prog="python -m bench.serving", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of: {', '.join(BENCHMARKS)} (default: all)"
    )
    chosen, _ = parser.parse_known_args(argv)
    return command.run([BENCHMARKS[name] for name in chosen.names or BENCHMARKS], parser, argv)


if __name__ == "__main__":
    sys.exit(main())
