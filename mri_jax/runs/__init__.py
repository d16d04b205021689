"""Results folders, read as tables, and finished runs, opened with their networks and scans."""
