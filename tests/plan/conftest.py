"""How golden plans are brought up to date."""

from __future__ import annotations

import os

import pytest


@pytest.fixture
def update_plans() -> bool:
    """Whether golden plans are to be written anew: `UPDATE_PLANS=1 pytest tests/plan`."""
    return os.environ.get("UPDATE_PLANS") == "1"
