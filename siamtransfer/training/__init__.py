"""What every training of ours does: the step, the guard before the update, progress, the journal."""
