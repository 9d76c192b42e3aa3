"""HTTP in front of the runtime: routes, events, errors. No policy of its own."""
