"""``s3://``: R2 on an S3 server.

driver        objects, with an outbox on this machine;  uploads: those in parts
  names       what an object is called there;  metadata: what is kept of it, and where
  known       what need not be asked again
  spool       a body before it is sent
  store       the S3 calls, over session (HTTP) and url (the options)
"""
