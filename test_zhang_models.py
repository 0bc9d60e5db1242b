"""The brief's test command for the models: `python test_zhang_models.py` runs tests/models."""

import sys
from pathlib import Path

import pytest

if __name__ == "__main__":
    sys.exit(pytest.main([str(Path(__file__).parent / "tests" / "models"), *sys.argv[1:]]))
