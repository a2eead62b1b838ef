"""Experiments: the demonstration, the benchmarks and the report they share."""
