"""What to show when something in a lab has failed."""

from __future__ import annotations

from collections.abc import Iterator

from lab.errors import LabError
from lab.laboratory import Lab

LOG_LINES = 15


def diagnosis(lab: Lab) -> Iterator[tuple[str, str]]:
    """Titles and texts: what the cluster says, and the ends of our programs' logs."""
    for what in ("dsrservices", "dsrplans", "dsrnodes"):
        try:
            yield what, lab.kubectl("get", what, "-A", "-o", "yaml")
        except LabError as error:
            yield what, str(error)
    in_cluster = [name for name, node in lab.nodes.items() if node.member.in_cluster]
    for part in ("operator", *in_cluster):
        log = lab.log(part)
        lines = log.read_text(errors="replace").splitlines() if log.exists() else ["(no log)"]
        yield f"log of {part}", "\n".join(lines[-LOG_LINES:])
