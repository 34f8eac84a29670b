"""FUSE, spoken natively: a filesystem served to the kernel over /dev/fuse.

    abi         the protocol: names, numbers, structures
    init        what is agreed upon when a session begins
    attr        from an inode to the protocol's attributes
    server      requests; with directory, data, ioctl for theirs
    session     the loop
    mounting    mount(2), fusermount3, what is mounted
    options     mount options
    guard       the image's lock; what the kernel has mounted
    daemon      the process
    live        what a mount tells about itself
    helper      mount.fuse.pocketxfs, for mount(8) and fstab

Nothing is imported here: a mount process loads what it runs.
"""
