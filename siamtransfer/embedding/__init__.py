"""Own images through a frozen backbone: tables of features, and labels for new ones."""
