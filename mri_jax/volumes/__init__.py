"""From raw scans to the store of volumes, and batches streamed from it; no JAX."""
