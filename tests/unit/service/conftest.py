"""One service for tests that need nothing special of it."""

from collections.abc import Iterator

import pytest

from tests.helpers.service import EchoReasoner, Service, SizeWriter, running_service


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running_service(SizeWriter(), EchoReasoner()) as running:
        yield running
