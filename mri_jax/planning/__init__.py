"""Planning: a study and the catalogue of its scans become stages; needs no device and no volume."""
