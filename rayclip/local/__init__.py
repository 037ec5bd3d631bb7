"""A run without Ray: the command supervises one worker process."""
