"""The pipeline from noise to uploaded shards.

This file imports nothing, so that ``run_records``, ``run_costs`` and ``stage_times`` can be used without torch.
"""
