"""Stands in for the kubelets: keeps each running member's Lease fresh and its Node Ready.

Run as `python -m lab.keeper LAB`; ends by a signal.
"""

from __future__ import annotations

import sys
import time

from lab import cluster_objects
from lab.api import Api, ApiError
from lab.names import Home
from lab.settings import Settings

INTERVAL = 5.0
"""Seconds between two rounds; a kubelet takes 10, and node lifecycle gives up after 50."""
RETRY = 1.0
"""Seconds to the next round when the API server did not answer."""


def main(name: str) -> None:
    """Go round for ever."""
    home = Home(name)
    api = Api(home.kubeconfig)
    nodes = [each for each in Settings.load(home).nodes(home) if each.member.in_cluster]
    while True:
        pause = INTERVAL
        for node in nodes:
            try:
                if node.running:
                    cluster_objects.keep(api, node.member)
            except ApiError as error:
                print(error, flush=True)
                pause = RETRY
        time.sleep(pause)


if __name__ == "__main__":
    main(sys.argv[1])
