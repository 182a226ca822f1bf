"""openqmail's core: SMTP in and out, a queue that loses nothing, delivery to users and hosts.

The rooms and the one rule about their imports are drawn in docs/architecture.md.
"""
