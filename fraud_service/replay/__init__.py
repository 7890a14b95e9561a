"""Replay: decisions rebuilt from the log, by the same core that made them.

`pairing`, `differences`, `engine`, `compare`, `lessons` and `figures` are pure. `logs` reads the topics, through
`stream.archive` alone; `run`, `candidates`, `explain`, `cards` and `taught` put both together. Nothing is written to
any topic, group or state.
"""
