"""Parts of scripts/gpu_minutes.sh."""
