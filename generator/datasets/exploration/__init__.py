"""Looking at a build of many samples: its columns on disk, filters, histograms, the map, and two builds compared.

Imports no torch.
"""
