"""R2: buckets of objects, and the notifications that tell queues of them.

bucket            what a Worker's binding does, over any driver
  options         ranges, conditions, checksums
  worker_options  the same as Workers write them (header_options: as HTTP headers)
  upload, listing, limits
notifications     the rules, the messages, the relay from the outbox to the queues
driver            what a store must do, and the table of stores
  memory, file    over indexed: SQLite and blobs
  s3              over object_names, with its outbox on this machine
"""
