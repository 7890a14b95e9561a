"""Replay: decisions rebuilt from the log, by the same core that made them.

`pairing`, `differences`, `engine`, `compare`, `lessons` and `profiles` are pure; `logs` reads the topics, through
`stream.archive` alone; `run`, `explain` and `past` put both together. Nothing is written to any topic, group or state.
"""
