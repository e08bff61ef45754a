"""Data sets that come with packages."""
