"""Measurements that stand behind the figures in RESULTS.md."""
