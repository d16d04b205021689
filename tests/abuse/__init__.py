"""What happens to damaged files, shared people, kills and full disks: ``python -m tests.abuse``."""
