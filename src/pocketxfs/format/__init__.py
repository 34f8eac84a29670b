"""What is on the disk: pure, bytes in and values out, no I/O.  A file for each on-disk idea."""
