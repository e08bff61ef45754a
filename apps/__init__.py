"""The faces of labkit: command line, app, book, benchmarks; the library imports none."""
