"""The keeper: a small process that alone may set GPUs, and that always gives them back.

```text
protocol, lines      what clients may say, a line at a time                          pure
permits              what may be set on a GPU                                        pure
lease, clerk         who holds which GPU until when; what every request means        pure
marker               what was changed on a GPU and how it was before                 pure
marker_files         the markers on disk
steward, worker      one GPU: sets it and gives it back, in a thread of its own
peers                who is at the other end of a socket
service, mailbox     the loop: sockets and finished work in, answers and work out
state_dir            what makes a keeper the only one: its directory, its locks, its socket
config, start        from a file to a running keeper
client, session      the other end: `KeeperClient` sets a GPU through a keeper
reset                for a person in a hurry
```

Everything that decides is free of clocks, sockets and NVML, and can be read and tested alone. The loop has
one thread, so nothing that decides needs a lock. NVML may block for seconds: each GPU has its own thread for
it, so that no GPU waits for another to be given back.

Nothing is imported here but the standard library and nvidia-ml-py, for this runs as root.
"""
