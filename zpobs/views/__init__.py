"""What people and machines see: every view reads frozen snapshots and nothing else."""
