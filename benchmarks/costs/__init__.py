"""What Parrot itself costs: the parts of `benchmarks/overhead.py`."""
