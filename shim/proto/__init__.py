"""The vendored message definitions, and the generator of `shim.api` from them. Nothing here is imported by the shim."""
