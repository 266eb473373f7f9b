"""R2's S3 API: what S3 clients read and write in the project's buckets while edgesim runs.

``app`` serves a request in this order: ``request`` reads it, ``signature`` checks the signature and
``authorisation`` decides, ``routing`` finds the operation, and ``objects``, ``listing``,
``deletion``, ``multipart`` or ``buckets`` runs it on a Bucket.  ``payload`` decodes and verifies
the body meanwhile (``aws_chunked``, ``checksums``, ``crc``); ``documents`` reads and writes XML,
and ``refusals`` has the errors.  ``client_settings`` are the settings for Iceberg's clients.

Statuses, codes and texts are those that R2 documents, or that Cloudflare's own local server
(miniflare 5) reproduces from R2.
"""
