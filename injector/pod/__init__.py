"""`inject`: a Pod and what is asked for in, the same Pod with Litestream in it out; pure, and the same when done twice.

It may know annotations, options and Kubernetes' objects. It may not know the clock, the environment, the network,
or who calls it.
"""
