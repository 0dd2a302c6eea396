"""The `vendo` command: a client of the control plane. Only `up`, `relay up` and `demo` build a process."""
