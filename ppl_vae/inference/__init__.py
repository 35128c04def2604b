"""Inference beyond the amortized guide."""
