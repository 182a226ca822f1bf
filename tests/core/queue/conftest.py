import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session", autouse=True)
def _a_small_pool():
    """Few numbers are reserved ahead, so that opening a queue is a short history."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("openqmail.core.queue.pool.LEAST", 8)
        yield
