"""Container images: what they are called, how they are built, how a command gets into one.

Standard library only: login nodes build images, and compute nodes enter them, with nothing else.
"""
