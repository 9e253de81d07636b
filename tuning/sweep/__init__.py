from tuning.sweep.tune_results import results

__all__ = ["results"]
