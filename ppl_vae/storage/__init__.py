"""Files that are written whole, tensors, HDF5, and limits on memory."""
