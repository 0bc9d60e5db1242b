"""Tools of this repository alone: they write its documents and notebooks, and are not part of the package."""
