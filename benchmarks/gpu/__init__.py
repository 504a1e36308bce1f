"""What two frameworks do on one GPU: `python -m benchmarks gpu --out FOLDER`.

It needs neither Snakemake nor an index nor a network: the frameworks, NumPy and few packages more
(docs/performance.md lists them). The command's own process imports no framework. Each measurement
runs in a child process of one framework, which is asked by messages (`child`, `worker`) and drives
the project's own engine, feed and loop (`trial`); children compute one at a time. A result is
written the moment it is there (`results`), and a child that fails is a row that says so.

`command`   options, the order of the parts, and how much of the time each may have
`session`   what the parts share
`device`    facts of the GPU, and the peaks that MFU divides by
`inputs`    datasets: staged files, or noise of the same shape
`ladder`    parity on the device
`mnist`, `resnet50`, `scan`, `cifar10`   the measurements
"""
