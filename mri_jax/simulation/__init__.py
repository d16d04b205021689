"""Multi-site cohorts with a known truth, written as a cohort table and a volume store."""
