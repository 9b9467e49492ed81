"""LiteBox's OCI runtime: from a bundle's config.json to a running micro-VM."""
