"""Runs tests/data. `python test_data_pipeline.py` takes the options of pytest."""

import sys
from pathlib import Path

import pytest

if __name__ == "__main__":
    sys.exit(pytest.main([str(Path(__file__).parent / "tests" / "data"), *sys.argv[1:]]))
