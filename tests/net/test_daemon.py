"""The daemon as a whole: `dsr-node --plans DIR` on LB nodes and real servers, with real HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.net.site import URLS, Site, site, web


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as place:
        yield place


def test_http_through_both_vips_by_direct_return(place: Site) -> None:
    place.put(web())
    place.start()
    for url in URLS:
        place.answers(url)
    served = {place.get(url) for url in URLS for _ in range(20)}
    assert served == {"rs1", "rs2"}
