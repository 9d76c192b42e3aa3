"""What is deduced from the graph: what every request is scheduled for. Pure."""
