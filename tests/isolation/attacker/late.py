"""Imported by walker.py in a handler; collects the frames that the import runs on."""

import sys

frames = []
_frame = sys._getframe()
while _frame is not None:
    frames.append((_frame, dict(_frame.f_locals)))
    _frame = _frame.f_back
