"""The audit trail of ingress: what ModSecurity saw of each request, masked, chosen, kept within a budget, and found.

Its one neighbour is whoever runs nginx: that one says where records come from and which Ingress each is of.
"""
