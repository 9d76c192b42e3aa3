"""The async shell around the machine: owns tasks, the clock and the engines' connections."""
