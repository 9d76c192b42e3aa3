"""The dataflow graph of variables, requests and native calls, and what may happen to it. Pure."""
