"""The shared data path: sources, the HDF5 format, the order of examples and the reader."""
