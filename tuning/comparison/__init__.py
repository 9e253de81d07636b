"""The command ``compare``: both architectures trained side by side, or two sweeps that are over."""
