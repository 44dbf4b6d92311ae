"""The HTTP server (`latentmill serve`): API v1 and pages, over the ledger and the store. It never imports torch.

This file imports nothing, because clients read only the names of roles.
"""
