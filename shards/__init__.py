"""The modules of webdataset/webdataset.py and webdataset/card.py.

They stand apart from those scripts because the folder `webdataset/` bears the name of the library that is used here:
a module inside it could not be imported by name. `plan` says which sample goes into which shard, `left_out` why a row
is in none, `pack` writes one shard, `publish` puts a set in place, `check` compares a set with its manifests, `card`,
`story`, `stages` and `croissant` describe it.
"""
