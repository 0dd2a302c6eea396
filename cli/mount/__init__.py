"""The tree as a file system of the kernel: a process of its own that asks the running node over HTTP."""
