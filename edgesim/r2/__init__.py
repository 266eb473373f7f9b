"""R2: buckets of objects, and the event notifications that they send to queues.

bucket            a Worker's bucket binding, over any driver
  multipart       multipart uploads
  options         ranges, conditions, checksums
  worker_options  the same options in JavaScript's shape (header_options: as HTTP headers;
                  worker_values: single values)
  upload, listing, limits, locks
notifications     the rules, the messages, the relay from the outbox to the queues
driver            the interface of a store, and the table of drivers
  memory, file    over indexed: SQLite (object_table, database) and blobs
  s3              an S3 server, with its outbox on this machine
"""
