"""Files written whole, tensors, HDF5, and the memory that they take."""
