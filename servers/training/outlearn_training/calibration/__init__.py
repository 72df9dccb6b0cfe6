"""What a task is calibrated with: teachers, ceilings, controls and sanity lines over several seeds."""
