"""Ways to watch a sweep: the terminal, Ray metrics, Weights & Biases."""
