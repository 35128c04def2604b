"""Questions asked of a posterior, one file each, all answered by a verdict and labelled arrays."""
