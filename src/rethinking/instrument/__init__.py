"""The instrument: a randomization test of any network on any images, and its verdict."""
