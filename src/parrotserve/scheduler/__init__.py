"""Where and when requests run. Pure."""
