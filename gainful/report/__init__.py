"""What people see of a run: live in the terminal, and afterwards as one HTML page.

Reads the records of :mod:`gainful.loop.events` and nothing else; decides nothing, writes no file.
"""
