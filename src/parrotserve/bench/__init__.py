"""Benchmarks: applications as users run them, on Parrot and on what they would run instead."""
