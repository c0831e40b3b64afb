"""Captures: what a session saw, in a file that can be read, replayed and cut.

``docs/capture-format.md`` is the format, complete; the modules here are one reading of it.
"""
