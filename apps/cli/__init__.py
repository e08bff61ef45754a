"""The commands of `labkit`, by what they work on; `cli.py` joins them."""
