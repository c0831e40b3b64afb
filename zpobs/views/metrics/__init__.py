"""What ``zpobs exporter`` serves: metrics, made of snapshots."""
