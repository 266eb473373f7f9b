"""What the pipeline would cost a month on the platform.

``prices`` reads the price table, ``usage`` says how much of each item every stage uses (planned or
measured), ``bill`` is the arithmetic.
"""
