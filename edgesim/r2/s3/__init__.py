"""``s3://``: R2 on an S3 server.

driver        objects, with a local outbox;  uploads: multipart uploads
  names       object names on the server;  metadata: R2 metadata in S3 headers
  known       cache of object metadata, for listings
  spool       a request body before it is sent
  store       the S3 calls, over session (HTTP) and url (the options)
"""
