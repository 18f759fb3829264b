"""Training of the local networks: photos -> COLMAP models -> patch sets -> descriptor, shape and orientation networks.

Nothing heavy is imported here; import the module you need: `sources`, `patchset`, `sampling`, `augment`, `losses`,
`trainer`, `loop`, ...
"""
