"""The shared data path: sources, the HDF5 format, the order of examples and the reader."""

import os

# Shards are written under names of their own and renamed: nobody needs the locks of HDF5, which not
# every network file system has. This variable outdoes what h5py is told, and sites set it.
os.environ["HDF5_USE_FILE_LOCKING"] = "FALSE"
