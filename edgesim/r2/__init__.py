"""R2: buckets of objects, and the notifications that tell queues of them.

bucket            what a Worker's binding does, over any driver
  multipart       objects that arrive in parts
  options         ranges, conditions, checksums
  worker_options  the same as Workers write them (header_options: as HTTP headers; worker_values)
  upload, listing, limits, locks
notifications     the rules, the messages, the relay from the outbox to the queues
driver            what a store must do, and the table of stores
  memory, file    over indexed: SQLite (object_table, database) and blobs
  s3              an S3 server, with its outbox on this machine
"""
