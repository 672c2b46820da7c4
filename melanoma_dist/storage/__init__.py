"""Files and folders: atomic writes, locks, remote storage, and readers with limits for untrusted files."""
