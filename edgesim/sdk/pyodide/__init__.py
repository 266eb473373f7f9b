"""Subset of Pyodide that portable worker code imports."""
