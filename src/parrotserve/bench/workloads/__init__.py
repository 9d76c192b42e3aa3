"""The workloads of the paper (OSDI'24 Parrot, section 8), scaled to what a small model does on two cores in minutes;
and an agent with tools, and applications on two engines."""

from parrotserve.bench.workload import Workload
from parrotserve.bench.workloads.agents import AGENTS
from parrotserve.bench.workloads.apps import APPS
from parrotserve.bench.workloads.chain import CHAIN
from parrotserve.bench.workloads.copilot import COPILOT
from parrotserve.bench.workloads.gpts import GPTS
from parrotserve.bench.workloads.map_reduce import MAP_REDUCE
from parrotserve.bench.workloads.mixed import MIXED
from parrotserve.bench.workloads.tools import TOOLS

WORKLOADS: dict[str, Workload] = {
    workload.name: workload for workload in (CHAIN, MAP_REDUCE, COPILOT, GPTS, AGENTS, MIXED, TOOLS, APPS)
}
