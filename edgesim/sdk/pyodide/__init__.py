"""The part of Pyodide that portable worker code imports."""
