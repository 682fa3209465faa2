"""A long run of mixed prompts through a real ComfyUI: ``python3 dev.py soak``.

One server runs a random sequence of prompts: models of five kinds with stacks of LoRAs in five
formats, captions of images that were seen and of new ones, prompts that must be refused. Some are
interrupted at random moments, some deleted from the queue, and models are dropped now and then.
The cache for LoRAs is so small that files push each other out, and ComfyUI keeps 200 results.
Before each sample every model runs once without LoRAs, which must leave nothing on it, and freed
memory that the C library keeps goes back to the system. A trend is
the line of least squares after the first two fifths, with its 95 % interval; it is flat if growth
above what is allowed can be ruled out. Every result that comes again must be equal bit for bit,
and random ones must be equal to those of servers that were just started.

`plan` thinks up the prompts, `runner` has a server run them, `watch` looks at the server's memory,
`trend` says whether it grows, and `fresh` compares with servers just started.
"""
