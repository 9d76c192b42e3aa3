"""What `benchmarks/engine.py` measures: engines that prefill and decode, behind one small interface."""
