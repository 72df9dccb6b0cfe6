"""The training server: methods run in a sandbox, students are trained, a trusted predictor signs receipts."""
