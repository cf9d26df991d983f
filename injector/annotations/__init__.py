"""What users write: the one table of annotations, and their texts read into frozen Settings with all that is wrong.

It may know the operator's options and the grammars of values. It may not know Pods, HTTP, the clock or the network.
"""
