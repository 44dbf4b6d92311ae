"""The line from noise to uploaded shards. Imports nothing here: ``runs`` and ``timing`` are read without torch."""
