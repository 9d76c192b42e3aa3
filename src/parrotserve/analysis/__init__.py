"""What is deduced from the graph: what every request is scheduled for, and what prompts have in common. Pure."""
