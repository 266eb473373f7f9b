"""Analytics Engine: datasets of Workers, whose data points are rows in ClickHouse.

``dataset`` accepts data points into a stream's log, ``table`` is the stream's sink, ``dialect``
checks and translates the platform's SQL, ``query`` answers it.
"""
