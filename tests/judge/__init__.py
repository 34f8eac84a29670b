"""What judges pocketxfs: filesystems made by the Linux kernel, and what the kernel says is in them.

`recipes` names the filesystems, `kernel` and `uml` make them, `populate` fills them (it runs inside the mount),
`manifest` writes down what a kernel shows, `ours` what pocketxfs shows, `compare` tells the differences.
"""
