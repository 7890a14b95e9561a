"""The invariants of the service, checked on what lies on its topics.

`findings`, `matching`, `letters`, `decisions`, `lessons` and `profiles` are pure: entries in, findings out. `verify`
reads the topics and puts them together. Nothing here joins a group, commits an offset or writes.
"""
