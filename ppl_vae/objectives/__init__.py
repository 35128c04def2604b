"""What SVI minimizes, and how noisy its gradients are."""
