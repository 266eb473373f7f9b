"""Iceberg tables of R2 Data Catalog sinks, and the catalog that clients read them by.

``catalog`` keeps namespaces and tables in a bucket.  The metadata of tables is made by pyiceberg in
a process of its own: ``engine`` is the platform's side, ``process`` the other one, ``tables`` its
work, and ``wire`` is spoken between them.  The process reads and writes no object: metadata goes
in and out as bytes.

It starts with the first table; edgesim's own process imports neither pyiceberg nor pyarrow.
"""
