"""SQL of pipelines, run by DataFusion in a process of its own.

``engine`` is the platform's side, ``process`` the engine's.  ``wire`` is spoken between them;
``operators`` rewrites what DataFusion does not parse, ``json_functions`` adds what it lacks,
``columns`` turns a stream's rows into Arrow and back, ``files`` encodes results.

The process starts with the first statement that needs it; edgesim's own process imports neither
DataFusion nor pyarrow.
"""
