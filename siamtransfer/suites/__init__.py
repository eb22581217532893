"""A suite: many backbones on many tasks with one command, which can be stopped and goes on."""
