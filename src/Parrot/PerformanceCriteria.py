"""Criteria for waits: `from Parrot.PerformanceCriteria import LATENCY`, then `variable.get(perf=LATENCY)`."""

from parrotserve.criteria import Criteria

LATENCY = Criteria.LATENCY
THROUGHPUT = Criteria.THROUGHPUT
TTFT = Criteria.TTFT
TPOT = Criteria.TPOT

__all__ = ["LATENCY", "THROUGHPUT", "TPOT", "TTFT"]
