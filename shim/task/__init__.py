"""The task service: the containers of one pod and their processes, as containerd sees them."""
