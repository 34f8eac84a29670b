"""The lab: what a buffer policy costs on a real workload (DESIGN: "Filesystem engineers").

A *cell* is one workload on one image, over one backing, one machine and one size of memory, with one seed: `cell` runs
it in a process of its own and writes down everything that can be said of it.  `matrix` names cells, `runner` runs them,
`report` makes a page of them.  `workloads` are what a filesystem is asked to do; `traces` are recorded ones.

A face, like the command line: it knows `FileSystem`, machines and buffers, and nothing imports it but `cli/lab.py`.
"""
