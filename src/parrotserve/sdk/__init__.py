"""The front end: functions, templates, variables and sessions. Transports are injected."""
