"""The parts of scripts/bench_step.py. workloads and measure also run in the peer's environment, without racro_pl."""
