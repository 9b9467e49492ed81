"""From a validated config.json to a launch plan. Pure: facts about the host come in, a value comes out.

The plan (`model`) names what has to be done on the host (trees to detach, namespaces to open, cgroup to make, hooks to
run) and holds the ContainerSpec that litebox-vmm gets; `host.mounts`, `host.cgroups` and `create` carry it out.
"""
