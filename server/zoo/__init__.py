"""The CNNs of the field by name, written from their papers, one family a file.

`catalogue` lists them and needs no PyTorch; `weights` fills them with seeded random numbers, since no trained
weights come with them. `blocks` holds what several of them are built of.
"""
