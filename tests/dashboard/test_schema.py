"""Generated requests, valid and invalid, are answered as the OpenAPI document says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REQUESTS = Path(__file__).with_name("api_requests.py")


@pytest.mark.timeout(300)
def test_no_request_breaks_the_api() -> None:
    program = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", str(REQUESTS)]
    found = subprocess.run(program, capture_output=True, text=True, timeout=280)
    assert found.returncode == 0, found.stdout + found.stderr
    assert " passed" in found.stdout, found.stdout
