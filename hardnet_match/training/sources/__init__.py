"""Where patch sets come from: one file a form of training data, and what they share.

A `Source` gives its observations piece by piece (`base`); `gather` makes a `PatchSet` of them, in memory or as a file
larger than memory (`spool`). Import the module you need: `brown`, `dictionary`, `hpatches`, `amos`, `colmap`, `photos`.
"""
