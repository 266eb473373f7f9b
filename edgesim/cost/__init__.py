"""Monthly cost of the pipeline on Cloudflare.

``prices`` reads the price table, ``usage`` computes the quantity of each billed item by stage
(planned or measured), ``bill`` does the arithmetic.
"""
