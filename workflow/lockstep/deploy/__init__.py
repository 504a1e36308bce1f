"""After training: inference, export and compression compared on equal weights.

The same bytes go into every *route* (eager, compiled, exported, ONNX Runtime), and what comes out
is held to training's own evaluation before anything is timed.
"""
