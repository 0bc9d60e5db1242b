"""Runs tests/models. `python test_zhang_models.py` takes the options of pytest."""

import sys
from pathlib import Path

import pytest

if __name__ == "__main__":
    sys.exit(pytest.main([str(Path(__file__).parent / "tests" / "models"), *sys.argv[1:]]))
