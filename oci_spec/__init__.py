"""Models of the OCI runtime specification (config, state, features), versions 1.0 to 1.3."""
