"""HTTP in front of the runtime: routes, events, errors. It decides nothing itself."""
