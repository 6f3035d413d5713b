"""Production: traffic becomes evidence, evidence an improvement in service, and what was wrong is taken back.

Guarantees: what is in service follows from the store's ledger alone, so that every process sees the same; one process
at a time learns for a task; text from traffic is data to whatever learns from it.
"""
